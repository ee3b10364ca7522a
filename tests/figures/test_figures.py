"""Every figure at several sizes: no text outside the page, none over another, and the commands."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.patches import Polygon, Rectangle
from synthetic_results import make_candidates, make_report

from layout import check_layout, texts
from r2m.cli import (
    figure_dumbbell,
    figure_heatmap,
    figure_intervals,
    figure_reliability,
    figure_spectra,
    figure_tune,
)
from r2m.errors import R2MError
from r2m.evaluate.calibration import expected_calibration_error
from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.dumbbell import dumbbell
from r2m.report.figures.heatmap import heatmap, number
from r2m.report.figures.intervals import intervals
from r2m.report.figures.reliability import reliability
from r2m.report.figures.spectra import layer_type, read_report, spectra, spectra_by_type
from r2m.report.figures.tune import read_candidates, tune, tuned_options

SIZES = {
    "least": (1, 0, 0, 1),
    "default": (8, 2, 1, 4),
    "long names": (3, 2, 2, 3, 30),
    "many": (14, 6, 1, 9),
}
GRID: dict[str, list[float | str]] = {"residual.rank.ratio": [0.02, 0.05, 0.1], "scale.relative": [2, 4, 6]}


@pytest.mark.parametrize("size", SIZES)
def test_heatmap_layout(results: Callable[..., Any], size: str) -> None:
    made = results(*SIZES[size])
    check_layout(heatmap(made.auc, made.models, made.context))


def test_heatmap_shows_every_number_and_mark(results: Callable[..., Any]) -> None:
    made = results(4, 2, 1, 3)
    axes = heatmap(made.auc, made.models, made.context).axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert all(number(value) in shown for value in made.auc["auc"])
    corners = [patch for patch in axes.patches if type(patch) is Polygon]
    frames = [patch for patch in axes.patches if type(patch) is Rectangle and not patch.get_fill()]
    assert len(corners) == (made.auc["auc"] < 0.5).sum()
    assert len(frames) == 4 * 2


def test_heatmap_leaves_a_missing_set_open(results: Callable[..., Any]) -> None:
    made = results(2, 0, 0, 1)
    figure = heatmap(made.auc.iloc[:-1], made.models, made.context)
    assert [text.get_text() for text in figure.axes[0].texts].count("–") == 1


@pytest.mark.parametrize(("value", "text"), [(0.9314, ".931"), (1.0, "1.00"), (0.9996, "1.00"), (0, ".000")])
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("size", SIZES)
def test_dumbbell_layout(results: Callable[..., Any], size: str) -> None:
    check_layout(dumbbell(results(*SIZES[size]).means))


def test_dumbbell_without_references(results: Callable[..., Any]) -> None:
    made = results(2, 1, 0, 3, joint=False)
    bare = made.means[made.means["method"] != "weight_averaging"]
    figure = dumbbell(bare)
    check_layout(figure)
    assert not any(text.get_text() == "gain" for text in texts(figure))
    with pytest.raises(R2MError, match="no merged model"):
        dumbbell(bare[bare["kind"] != "merge"])


def test_dumbbell_gain_is_against_weight_averaging(results: Callable[..., Any]) -> None:
    made = results(2, 0, 0, 2)
    means = made.means.set_index("model")["auc"]
    gain = f"{means['r2m'] - means['weight_averaging']:+.3f}".replace("-", "−")
    assert gain in [text.get_text() for text in texts(dumbbell(made.means))]


@pytest.mark.parametrize("size", SIZES)
def test_intervals_layout(results: Callable[..., Any], size: str) -> None:
    made = results(*SIZES[size])
    check_layout(intervals(made.intervals, made.context))


def test_intervals_show_every_mean_of_a_protocol(results: Callable[..., Any]) -> None:
    made = results(4, 2, 1, 3)
    figure = intervals(made.intervals, made.context)
    shown = [text.get_text() for text in texts(figure)]
    whole = made.intervals[made.intervals["part"] == "mean"]
    for row in whole.to_dict("records"):
        assert f"{row['auc']:.3f}" in shown
        assert f"{row['low']:.3f}–{row['high']:.3f}" in shown
    assert "0.123" not in shown
    panels = figure.axes[1:]
    assert len(panels) == 3
    bars = [line for line in panels[0].lines if len(line.get_xdata()) == 2 and line.get_lw() == 1.6]
    assert len(bars) == len(made.models)
    assert sum(line.get_linestyle() == "--" for line in panels[0].lines) == 1, "the reference's mean"
    assert {axes.get_xlim() for axes in panels} == {panels[0].get_xlim()}


def test_intervals_without_a_reference(results: Callable[..., Any]) -> None:
    made = results(2, 0, 0, 2, joint=False)
    figure = intervals(made.intervals.assign(reference=""), made.context)
    check_layout(figure)
    assert not any(line.get_linestyle() == "--" for line in figure.axes[1].lines)


@pytest.mark.parametrize("size", SIZES)
def test_reliability_layout(results: Callable[..., Any], size: str) -> None:
    made = results(*SIZES[size])
    check_layout(reliability(made.curves, made.models, made.context))


def test_reliability_draws_every_bin_and_tells_the_errors(results: Callable[..., Any]) -> None:
    made = results(2, 1, 1, 1)
    figure = reliability(made.curves, made.models, made.context)
    panels = figure.axes[1:]
    assert len(panels) == len(made.models)
    own = made.curves[made.curves["model"] == made.models["model"].iloc[0]]
    drawn = panels[0].lines[1::2]
    for line, (_, curve) in zip(drawn, own.groupby("protocol", sort=False), strict=True):
        np.testing.assert_allclose(line.get_ydata(), curve["fakes"])
    errors = [
        f"{expected_calibration_error(curve):.2f}".lstrip("0")
        for _, curve in own.groupby("protocol", sort=False)
    ]
    assert f"ECE {' · '.join(errors)}" in [text.get_text() for text in texts(figure)]


@pytest.mark.parametrize("count", [1, 4, 25])
def test_spectra_layout(results: Callable[..., Any], count: int) -> None:
    made = results(25, 0, 0, 1, 12)
    reports = {
        name: make_report(index, 1) for index, name in enumerate(list(made.context.generators)[:count])
    }
    check_layout(spectra(reports, made.context, "r2m" if count > 1 else ""))


def test_spectra_of_many_types_and_of_zero_residuals() -> None:
    report: Any = make_report(0, zero=True)
    matrix = next(iter(report["matrices"].values()))
    report["matrices"] |= {f"stages.{stage}.part_{stage}.weight": matrix for stage in range(3)}
    figure = spectra({"swap": report}, EvaluationContext())
    assert len(figure.axes) == 1 + 2 * 7
    check_layout(figure)


def test_spectra_are_medians_over_blocks() -> None:
    report: Any = {
        "matrices": {
            f"blocks.{index}.mlp.fc1.weight": {
                "rank": rank,
                "task_vector_values": [value, 1.0],
                "residual_values": [value],
            }
            for index, (rank, value) in enumerate([(1, 2.0), (2, 3.0), (6, 10.0)])
        }
    }
    spectrum = spectra_by_type(report)["mlp.fc1"]
    assert (spectrum.rank, spectrum.task_vector.tolist(), spectrum.residual.tolist()) == (
        2.0,
        [3.0, 1.0],
        [3.0],
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("blocks.9.attn.qkv.weight", "attn.qkv"),
        ("stages.1.blocks.2.conv_dw.weight", "blocks.conv_dw"),
        ("head.weight", "head"),
    ],
)
def test_layer_type(name: str, kind: str) -> None:
    assert layer_type(name) == kind


def test_report_must_hold_the_spectra(tmp_path: Path) -> None:
    for name, content in {
        "a": "{",
        "b": "{}",
        "c": '{"matrices": {}}',
        "d": '{"matrices": {"w": {"rank": 1}}}',
    }.items():
        path = tmp_path / f"{name}.json"
        path.write_text(content)
        with pytest.raises(R2MError, match=rf"{name}\.json"):
            read_report(path)


@pytest.mark.parametrize(
    "variants",
    [
        {"weight_averaging": make_candidates({}, 0)},
        {
            "weight_averaging": make_candidates({}),
            "r2m": make_candidates(GRID),
            "a_very_long_name_of_a_variant_that_wraps": make_candidates({"scaling": [0.1, 0.2]}),
        },
        {f"r2m_{index}": make_candidates(GRID | {"head": ["specialist:swap"]}) for index in range(9)},
    ],
)
def test_tune_layout(variants: dict[str, pd.DataFrame]) -> None:
    figure = tune(variants, EvaluationContext(variants={"r2m": "R²M", "weight_averaging": "Averaging"}))
    check_layout(figure)
    if "r2m" in variants:
        titles = [text.get_text() for text in texts(figure)]
        assert titles.index("R²M") < titles.index("Averaging")
    assert len({axes.get_ylim() for axes in figure.axes[1:]}) == 1


def test_candidates_are_checked(tmp_path: Path) -> None:
    good = make_candidates(GRID)
    assert tuned_options(good) == list(GRID)
    for name, frame, message in [
        ("none", good.drop(columns="chosen"), "missing: chosen"),
        ("two", good.assign(chosen=True), "exactly one"),
    ]:
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(R2MError, match=message):
            read_candidates(tmp_path / f"{name}.csv")
    with pytest.raises(R2MError, match=r"gone\.csv"):
        read_candidates(tmp_path / "gone.csv")


def test_commands(results: Callable[..., Any], tmp_path: Path) -> None:
    made = results(2, 1, 1, 2)
    paths = {
        name: str(tmp_path / f"{name}.csv")
        for name in ("auc", "models", "dumbbell", "r2m", "intervals", "curves")
    }
    made.auc.to_csv(paths["auc"], index=False)
    made.models.to_csv(paths["models"], index=False)
    made.means.to_csv(paths["dumbbell"], index=False)
    made.intervals.to_csv(paths["intervals"], index=False)
    made.curves.to_csv(paths["curves"], index=False)
    make_candidates(GRID).to_csv(paths["r2m"], index=False)
    report = tmp_path / "swap.json"
    report.write_text(json.dumps(make_report(0)))
    options = ["--options", made.context.model_dump_json()]
    runs: list[tuple[Any, Sequence[str]]] = [
        (figure_heatmap, ["--table", paths["auc"], "--models", paths["models"], *options]),
        (figure_dumbbell, ["--means", paths["dumbbell"]]),
        (figure_intervals, ["--means", paths["intervals"], *options]),
        (figure_reliability, ["--table", paths["curves"], "--models", paths["models"], *options]),
        (figure_spectra, [str(report), *options, "--title", "r2m"]),
        (figure_tune, ["--candidates", f"r2m={paths['r2m']}", *options]),
    ]
    for module, arguments in runs:
        stem = tmp_path / "out" / module.__name__
        result = CliRunner().invoke(module.command, [*arguments, "--out", str(stem)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        f"{module.__name__}.{suffix}"
        for (module, _), suffix in itertools.product(runs, ("pdf", "svg", "png"))
    }
