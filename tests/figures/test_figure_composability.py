"""The figure of generators that arrive one by one."""

import numpy as np
import pandas as pd
import pytest
from layout import check_layout

from r2m.evaluate.protocols import EvaluationContext
from r2m.figures.composability import PARTS, figure
from r2m.report.figures.style import KIND_COLOURS, METHOD_COLOURS

LABELS = {
    "weight_averaging": "Weight averaging",
    "task_arithmetic": "Task arithmetic",
    "ties": "TIES",
    "r2m": "R²M, matrix space",
    "tsv_m": "TSV-M",
}


def table(count: int, merges: int) -> pd.DataFrame:
    """A table as it is read from CSV: what is missing is empty text."""
    random = np.random.default_rng(0)
    methods = [("merge", name, LABELS[name]) for name in list(LABELS)[:merges]]
    rows = []
    for k in range(1, count + 1):
        for kind, model, method in [*methods, ("joint", "joint", "Joint retraining")]:
            row: dict[str, object] = {"k": k, "kind": kind, "model": model, "method": method}
            for part in PARTS:
                mean = random.uniform(0.6, 0.95)
                missing = part == "to_come" and k == count
                for suffix, value in (("", mean), ("_low", mean - 0.03), ("_high", mean + 0.02)):
                    row[f"{part}{suffix}"] = "" if missing else f"{value:.6f}"
            rows.append({**row, "images": 4600.0 * k * (k + 1 if kind == "joint" else 1), "seconds": ""})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("count", "merges"), [(2, 1), (4, 4), (6, 5), (40, 2)])
def test_layout(count: int, merges: int) -> None:
    check_layout(figure(table(count, merges), EvaluationContext()))


def test_a_line_for_each_method_and_part() -> None:
    drawn = figure(table(4, 4), EvaluationContext())
    assert [axes.get_title(loc="left") for axes in drawn.axes] == [*PARTS.values(), "Images read"]
    for axes in drawn.axes:
        colours = [line.get_color() for line in axes.lines]
        expected = [*(METHOD_COLOURS[name] for name in list(LABELS)[:4]), KIND_COLOURS["joint"]]
        assert sorted(colours) == sorted(expected)
    come = drawn.axes[1].lines[0].get_ydata()
    assert np.isfinite(come).tolist() == [True, True, True, False]


def test_variants_of_one_method_have_marks_of_their_own() -> None:
    rows = table(3, 4).replace({"model": {"ties": "r2m_task"}})
    lines = figure(rows, EvaluationContext()).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 5
    assert [line.get_marker() for line in lines] == ["o", "o", "o", "D", "s"]
