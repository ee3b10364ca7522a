"""The pipeline diagram with every option of R²M, and with few and many specialists."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from synthetic_results import make_merge_report

from layout import check_layout, texts
from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext
from r2m.report import stages
from r2m.report.figures.pipeline import draw_pipeline, read_merge_report, read_tuned
from r2m.report.figures.style import FAMILY_COLOURS

CONTEXT = EvaluationContext.model_validate(
    {
        "generators": {
            "up": {"family": "EFS", "label": "Upsampler"},
            "swap": {"family": "FS", "label": "Face swap"},
            "lip": {"family": "FR", "label": "Lip sync"},
            "inp": {"family": "FE", "label": "Inpainting"},
        }
    }
)
NAMES = list(CONTEXT.generators)
TWO_COLUMNS = 7.0


def shown(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


def draw(tuned: tuple[str, ...] = (), head: str = "average", **options: Any) -> list[str]:
    """Draw a merge with some options, check the layout, and return what stands in the figure."""
    figure = draw_pipeline(make_merge_report(NAMES, head=head, **options), tuned, CONTEXT, "R²M")
    check_layout(figure)
    return shown(figure)


def test_default_fits_two_columns_and_can_be_read() -> None:
    figure = draw_pipeline(make_merge_report(NAMES, real__space="matrix"), {"scale.relative"}, CONTEXT, "R²M")
    check_layout(figure)
    assert figure.get_size_inches()[0] <= TWO_COLUMNS
    assert min(text.get_fontsize() for text in texts(figure)) >= 7


@pytest.mark.parametrize(("count", "length"), [(1, 4), (2, 30), (25, 12)])
def test_layout_with_other_specialists(results: Callable[..., Any], count: int, length: int) -> None:
    made = results(count, 0, 0, 1, length)
    names = list(made.context.generators)
    figure = draw_pipeline(make_merge_report(names), (), made.context)
    check_layout(figure)
    assert not any("chosen" in text for text in shown(figure))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"real__space": "matrix", "real__core_ratio": 0.03}, ["matrix space", "core ratio 0.03"]),
        ({"real__rank": 2}, ["task space", "rank 2 of 4"]),
        ({"real__rank": 9, "real__scope": "layer"}, ["rank 4 of 4", "tensor by tensor"]),
        ({"real__center": True, "real__block_weight": "frobenius"}, ["centred", r"$1/\Vert A\Vert$"]),
        ({"real__block_weight": "frobenius_sqrt_size"}, [r"$\sqrt{P}/\Vert A\Vert$"]),
        ({"residual__definition": "shift"}, [r"$F_k=\tau_k-\tau_\mathrm{core}$", r"$-\,\tau_\mathrm{core}$"]),
        ({"residual__rank__ratio": 0.05}, ["ratio 0.05", "rank 1–15 of 768"]),
        ({"residual__rank__energy": 0.9}, ["energy 0.9"]),
        ({"residual__rank__fixed": 8}, ["fixed rank 8"]),
        ({"residual__rank__optimal_threshold": True}, ["optimal threshold"]),
        ({"norm_match": "model"}, ["over the model", "0.510 → 0.520"]),
        ({"norm_match": "layer"}, ["tensor by tensor"]),
        ({"norm_match": "none"}, ["none", "0.510"]),
        ({"scale__relative": 7.0}, [r"$\lambda=$16.8", r"=$7 $\Vert\tau_\mathrm{core}\Vert$"]),
        ({"scale__absolute": 16.82}, [r"$\lambda=$16.8"]),
    ],
)
def test_options_stand_in_the_figure(options: dict[str, Any], expected: list[str]) -> None:
    lines = " ".join(draw(**options))
    assert [text for text in expected if text not in lines] == []


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("average", "head: mean of the specialists’ heads"),
        ("base", "head: initial head of all specialists"),
        ("specialist:lip", "head: that of Lip sync"),
    ],
)
def test_head_rule(head: str, text: str) -> None:
    assert text in draw(head=head)


def test_stars_mark_what_was_chosen_on_val() -> None:
    lines = draw(("residual.rank.ratio", "scale.relative"), residual__rank__ratio=0.05, scale__relative=7.0)
    assert "ratio 0.05*" in lines
    assert any("=$7* " in line for line in lines)
    assert "* chosen on the validation split" in lines
    assert not any("task space*" in line for line in lines)


def test_residuals_that_cancel() -> None:
    report = make_merge_report(NAMES) | {"lambda": 0.0}
    assert "(they cancel)" in shown(draw_pipeline(report, (), CONTEXT))


def test_specialists_stand_by_family_in_its_colour() -> None:
    figure = draw_pipeline(make_merge_report(NAMES), (), CONTEXT)
    labels = [text for text in shown(figure) if text.endswith(")")]
    assert labels == ["Face swap (FS)", "Lip sync (FR)", "Upsampler (EFS)", "Inpainting (FE)"]
    strips = [
        to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches if type(patch) is Rectangle
    ]
    assert [colour for colour in strips if colour in FAMILY_COLOURS.values()] == list(FAMILY_COLOURS.values())


def test_specialists_of_families() -> None:
    figure = draw_pipeline(make_merge_report(["EFS", "FS"], head="specialist:FS"), (), CONTEXT)
    check_layout(figure)
    lines = shown(figure)
    assert lines.index("FS") < lines.index("EFS")
    assert "head: that of FS" in lines


def test_files_are_checked(tmp_path: Path) -> None:
    for name, content in {"a": "{", "b": "[]", "c": "{}"}.items():
        path = tmp_path / f"{name}.json"
        path.write_text(content)
        with pytest.raises(R2MError, match=rf"{name}\.json"):
            read_merge_report(path)
        with pytest.raises(R2MError, match=rf"{name}\.json"):
            read_tuned(path)
    (tmp_path / "ties.json").write_text(json.dumps({"variant": "ties", "head": "average", "options": {}}))
    with pytest.raises(R2MError, match="a merge by r2m; missing: core_norm"):
        read_merge_report(tmp_path / "ties.json")


def test_stage(tmp_path: Path) -> None:
    report, chosen = tmp_path / "report.json", tmp_path / "chosen.json"
    report.write_text(json.dumps(make_merge_report(NAMES)))
    chosen.write_text(json.dumps({"tuned": {"scale.relative": 0.6}}))
    stages.pipeline(report=report, chosen=chosen, context=CONTEXT, title="R²M", out=tmp_path / "out" / "r2m")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"r2m.{suffix}" for suffix in ("pdf", "svg", "png")
    }
