import os
from pathlib import Path

import pytest

from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.style import (
    FAMILY_COLOURS,
    METHOD_COLOURS,
    add_axes,
    method_colour,
    model_colour,
    new_figure,
    save,
    styled,
    text_width,
    wrap,
)


def draw(stem: Path) -> list[bytes]:
    with styled():
        figure = new_figure(2, 1.5)
        axes = add_axes(figure, 0.5, 0.25, 1, 0.75)
        axes.plot([0, 1], label="λ")
        axes.legend()
    save(figure, stem)
    return [stem.with_name(f"{stem.name}.{suffix}").read_bytes() for suffix in ("pdf", "svg", "png")]


def test_files_are_reproducible_whatever_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = draw(tmp_path / "a.b")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert draw(tmp_path / "two") == first
    assert b"CreationDate" not in first[0]
    assert b"<dc:date>" not in first[1]
    assert sorted(os.listdir(tmp_path)) == ["a.b.pdf", "a.b.png", "a.b.svg", "two.pdf", "two.png", "two.svg"]


def test_fonts_travel_with_the_files(tmp_path: Path) -> None:
    pdf, svg, _ = draw(tmp_path / "figure")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"<text" not in svg


def test_axes_are_placed_in_inches() -> None:
    axes = add_axes(new_figure(4, 2), left=1, top=0.5, width=2, height=1)
    assert axes.get_position().bounds == pytest.approx((0.25, 0.25, 0.5, 0.5))


def test_colours_stay_with_the_method() -> None:
    assert method_colour("r2m") == method_colour("r2m_task_space")
    assert method_colour("iso_cts") != method_colour("iso_c")
    assert method_colour("iso_cts_wide") == METHOD_COLOURS["iso_cts"]
    assert method_colour("my_own") == method_colour("my_own")
    assert len(set(METHOD_COLOURS.values())) == len(METHOD_COLOURS)


def test_colours_of_models_that_are_no_merges() -> None:
    context = EvaluationContext.model_validate({"generators": {"lip": {"family": "FR"}}})
    assert model_colour("mine", "merge", "r2m", context) == METHOD_COLOURS["r2m"]
    assert model_colour("lip", "specialist", "", context) == FAMILY_COLOURS["FR"]
    assert model_colour("EFS", "specialist", "", context) == FAMILY_COLOURS["EFS"], "of a family"
    assert model_colour("joint", "joint", "", context) == "#000000"


def test_text_is_measured_and_wrapped() -> None:
    assert text_width("", 8) == 0
    assert text_width("wide\nw", 8) == text_width("wide", 8)
    assert wrap("one two three", 8, text_width("one two", 8) + 0.01) == "one two\nthree"
    assert wrap("unbreakable", 8, 0.1) == "unbreakable"
