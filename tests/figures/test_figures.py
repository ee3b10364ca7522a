"""Every figure at several sizes: no text outside the page, none over another, and the stages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Polygon, Rectangle
from synthetic_results import make_candidates, make_report

from layout import check_layout, texts
from r2m.errors import R2MError
from r2m.evaluate.calibration import expected_calibration_error
from r2m.evaluate.protocols import EvaluationContext
from r2m.report import stages
from r2m.report.figures.candidates import draw_candidates, read_candidates, tuned_options
from r2m.report.figures.dumbbell import draw_dumbbell
from r2m.report.figures.forest import draw_forest
from r2m.report.figures.heatmap import draw_heatmap, number
from r2m.report.figures.reliability import draw_reliability
from r2m.report.figures.spectra import draw_spectra, layer_type, read_report, spectra_by_type

SIZES = {
    "least": (1, 0, 0, 1),
    "default": (8, 2, 1, 4),
    "long names": (3, 2, 2, 3, 30),
    "many": (14, 6, 1, 9),
}
GROUPS = {
    "two": ("diffusion", "GAN"),
    "one generator each": ("after 2024", None, "video", "of a very long name"),
    "long names": ("generators that were published after the specialists had been trained", None),
}
GRID: dict[str, list[float | str]] = {"residual.rank.ratio": [0.02, 0.05, 0.1], "scale.relative": [2, 4, 6]}


@pytest.mark.parametrize("size", SIZES)
def test_heatmap_layout(results: Callable[..., Any], size: str) -> None:
    made = results(*SIZES[size])
    check_layout(draw_heatmap(made.auc, made.models, made.context))


def test_heatmap_shows_every_number_and_mark(results: Callable[..., Any]) -> None:
    made = results(4, 2, 1, 3)
    axes = draw_heatmap(made.auc, made.models, made.context).axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert all(number(value) in shown for value in made.auc["auc"])
    corners = [patch for patch in axes.patches if type(patch) is Polygon]
    frames = [patch for patch in axes.patches if type(patch) is Rectangle and not patch.get_fill()]
    assert len(corners) == (made.auc["auc"] < 0.5).sum()
    assert len(frames) == 4 * 2


def test_heatmap_leaves_a_missing_set_open(results: Callable[..., Any]) -> None:
    made = results(2, 0, 0, 1)
    figure = draw_heatmap(made.auc.iloc[:-1], made.models, made.context)
    assert [text.get_text() for text in figure.axes[0].texts].count("–") == 1


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("size", ["default", "many"])
def test_groups_layout(results: Callable[..., Any], size: str, groups: str) -> None:
    made = results(*SIZES[size], groups=GROUPS[groups])
    check_layout(draw_heatmap(made.auc, made.models, made.context))
    check_layout(draw_dumbbell(made.means))


def test_groups_have_headings_and_panels_of_their_own(results: Callable[..., Any]) -> None:
    made = results(2, 4, 1, 2, groups=("new", "old"))
    axes = draw_heatmap(made.auc, made.models, made.context).axes[0]
    titles = [text.get_text() for text in axes.texts if "generators" in text.get_text()]
    assert titles == [
        f"{domain}\n{which}"
        for domain in ("CelebA", "Domain 0")
        for which in ("trained generators", "unseen generators,\nnew", "unseen generators,\nold")
    ]
    names = [text.get_text() for text in axes.texts if text.get_rotation() == 90]
    assert names == ["g0xx", "g1xx", "g4xx", "g2xx", "g5xx", "g3xx"] * 2, "by family within a group"
    figure = draw_dumbbell(made.means)
    shown = [text.get_text() for text in texts(figure)]
    assert "Unseen generators" not in shown
    assert [text for text in shown if text.startswith("Unseen")] == [
        "Unseen generators,\nnew",
        "Unseen generators,\nold",
    ]
    assert len(figure.axes) == 1 + 5


@pytest.mark.parametrize(("value", "text"), [(0.9314, ".931"), (1.0, "1.00"), (0.9996, "1.00"), (0, ".000")])
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("size", SIZES)
def test_dumbbell_layout(results: Callable[..., Any], size: str) -> None:
    check_layout(draw_dumbbell(results(*SIZES[size]).means))


def test_dumbbell_without_references(results: Callable[..., Any]) -> None:
    made = results(2, 1, 0, 3, joint=False)
    bare = made.means[made.means["method"] != "weight_averaging"]
    figure = draw_dumbbell(bare)
    check_layout(figure)
    assert not any(text.get_text() == "gain" for text in texts(figure))
    with pytest.raises(R2MError, match="no merged model"):
        draw_dumbbell(bare[bare["kind"] != "merge"])


def test_dumbbell_gain_is_against_weight_averaging(results: Callable[..., Any]) -> None:
    made = results(2, 0, 0, 2)
    means = made.means.set_index("model")["auc"]
    gain = f"{means['r2m'] - means['weight_averaging']:+.3f}".replace("-", "−")
    assert gain in [text.get_text() for text in texts(draw_dumbbell(made.means))]


@pytest.mark.parametrize("size", SIZES)
def test_intervals_layout(results: Callable[..., Any], size: str) -> None:
    made = results(*SIZES[size])
    check_layout(draw_forest(made.intervals, made.context))


def test_intervals_show_every_mean_of_a_protocol(results: Callable[..., Any]) -> None:
    made = results(4, 2, 1, 3)
    figure = draw_forest(made.intervals, made.context)
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
    figure = draw_forest(made.intervals.assign(reference=""), made.context)
    check_layout(figure)
    assert not any(line.get_linestyle() == "--" for line in figure.axes[1].lines)


@pytest.mark.parametrize("size", SIZES)
def test_reliability_layout(results: Callable[..., Any], size: str) -> None:
    made = results(*SIZES[size])
    check_layout(draw_reliability(made.curves, made.models, made.context))


def test_reliability_draws_every_bin_and_tells_the_errors(results: Callable[..., Any]) -> None:
    made = results(2, 1, 1, 1)
    figure = draw_reliability(made.curves, made.models, made.context)
    panels = figure.axes[1:]
    assert len(panels) == len(made.models)
    own = made.curves[made.curves["model"] == made.models["model"].iloc[0]]
    drawn = iter(panels[0].lines[1::2])
    for is_calibrated, when in ((False, "before"), (True, "after")):
        curves = [
            curve for _, curve in own[own["calibrated"] == is_calibrated].groupby("protocol", sort=False)
        ]
        for curve in curves:
            line = next(drawn)
            np.testing.assert_allclose(line.get_ydata(), curve["fakes"])
            assert (line.get_alpha() == 1) == is_calibrated
        errors = [f"{expected_calibration_error(curve):.2f}".lstrip("0") for curve in curves]
        assert f"ECE {when} {' · '.join(errors)}" in [text.get_text() for text in texts(figure)]
    assert next(drawn, None) is None


@pytest.mark.parametrize("count", [1, 4, 25])
def test_spectra_layout(results: Callable[..., Any], count: int) -> None:
    made = results(25, 0, 0, 1, 12)
    reports = {
        name: make_report(index, 1) for index, name in enumerate(list(made.context.generators)[:count])
    }
    check_layout(draw_spectra(reports, made.context, "r2m" if count > 1 else ""))


def test_spectra_of_many_types_and_of_zero_residuals() -> None:
    report: Any = make_report(0, zero=True)
    matrix = next(iter(report["matrices"].values()))
    report["matrices"] |= {f"stages.{stage}.part_{stage}.weight": matrix for stage in range(3)}
    figure = draw_spectra({"swap": report}, EvaluationContext())
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
def test_candidates_layout(variants: dict[str, pd.DataFrame]) -> None:
    figure = draw_candidates(variants, {"r2m": "R²M", "weight_averaging": "Averaging"})
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


def test_stages_write_three_formats(results: Callable[..., Any], tmp_path: Path) -> None:
    made = results(2, 1, 1, 2)
    names = ("auc", "models", "means", "intervals", "curves")
    paths = {name: tmp_path / f"{name}.csv" for name in names}
    for name, path in paths.items():
        getattr(made, name).to_csv(path, index=False)
    make_candidates(GRID).to_csv(tmp_path / "r2m.csv", index=False)
    (tmp_path / "swap.json").write_text(json.dumps(make_report(0)))
    context, models, out = made.context, paths["models"], tmp_path / "out"
    stages.heatmap(table=paths["auc"], models=models, context=context, out=out / "heatmap")
    stages.dumbbell(means=paths["means"], out=out / "dumbbell")
    stages.intervals(means=paths["intervals"], context=context, out=out / "intervals")
    stages.reliability(table=paths["curves"], models=models, context=context, out=out / "reliability")
    stages.spectra(reports=[tmp_path / "swap.json"], context=context, title="r2m", out=out / "spectra.1")
    stages.tuning(candidates={"r2m": tmp_path / "r2m.csv"}, labels={"r2m": "R²M"}, out=out / "tuning")
    assert {path.name for path in out.iterdir()} == {
        f"{name}.{suffix}"
        for name in ("heatmap", "dumbbell", "intervals", "reliability", "spectra.1", "tuning")
        for suffix in ("pdf", "svg", "png")
    }
