"""Heat map of the AUC of every model on every test set."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from r2m.evaluate.protocols import KINDS, EvaluationContext, TestSet, describe, group_title, order_test_sets
from r2m.report import numbers
from r2m.report.figures.style import FAINT, FAMILY_COLOURS, INK, canvas, new_figure, styled, text_width, wrap

CELL_WIDTH, CELL_HEIGHT = 0.36, 0.23
GAP, MARGIN, FAMILY_HEIGHT = 0.12, 0.12, 0.17
LABEL_SIZE, NUMBER_SIZE = 8.0, 7.0
LINE = 0.15
ABOVE_CHANCE = LinearSegmentedColormap.from_list("above", ["#f4f8fc", "#a6cbe3", "#3f8fc4", "#08407e"])
BELOW_CHANCE = LinearSegmentedColormap.from_list("below", ["#fde3c4", "#f5a04e", "#c45a00"])
LEGEND = (
    "AUC. Heavy frame: a specialist on its own generator. Orange with a corner: below 0.5 (labels inverted)."
)


@dataclass(frozen=True)
class _Columns:
    """Left edges (inches) of the columns, and per group its heading, first and last edge."""

    sets: list[TestSet]
    left: list[float]
    groups: list[tuple[str, float, float]]
    right: float


def draw_heatmap(auc: pd.DataFrame, models: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw models (rows, grouped by kind) against test sets (columns, grouped by domain and protocol).

    `auc` and `models` are auc.csv and models.csv. The figure grows with both; a cell keeps its size.
    """
    pairs = auc[["domain", "generator"]].drop_duplicates().itertuples(index=False)
    sets = order_test_sets([describe(domain, generator, context) for domain, generator in pairs], context)
    values = auc.set_index(["model", "test_set"])["auc"]
    labels = {test_set.generator: context.generator_label(test_set.generator) for test_set in sets}

    row_labels = [*models["label"], *KINDS.values()]
    origin = MARGIN + max(text_width(label, LABEL_SIZE) for label in row_labels) + 0.08
    columns = _columns(sets, origin, context)
    top = MARGIN + LINE * max(title.count("\n") + 1 for title, _, _ in columns.groups) + 0.1
    rows, bottom = _rows(models, top)
    names_height = max(text_width(label, LABEL_SIZE) for label in labels.values()) + 0.1
    width = max(columns.right + MARGIN, 3.6)
    legend = wrap(LEGEND, NUMBER_SIZE, width - 2 * MARGIN)
    legend_top = bottom + FAMILY_HEIGHT + names_height + 0.1
    height = legend_top + LINE * (legend.count("\n") + 1) + MARGIN

    with styled():
        figure = new_figure(width, height)
        axes = canvas(figure)
        for title, left, right in columns.groups:
            axes.plot([left, right], [top - 0.05] * 2, color=INK, lw=0.8)
            axes.text(left, top - 0.09, title, size=LABEL_SIZE, va="bottom", linespacing=1.15)
        for kind, y in _headings(models, rows):
            axes.text(origin - 0.08, y, KINDS[kind], size=LABEL_SIZE, ha="right", va="center", style="italic")
        for (_, model), y in zip(models.iterrows(), rows, strict=True):
            axes.text(
                origin - 0.08, y + CELL_HEIGHT / 2, model["label"], size=LABEL_SIZE, ha="right", va="center"
            )
            for test_set, x in zip(sets, columns.left, strict=True):
                is_own = model["kind"] == "specialist" and model["model"] == test_set.generator
                _cell(axes, x, y, float(values.get((model["model"], test_set.name), np.nan)), is_own)
        _families(axes, columns, bottom)
        for test_set, x in zip(sets, columns.left, strict=True):
            axes.text(
                x + CELL_WIDTH / 2,
                bottom + FAMILY_HEIGHT + 0.05,
                labels[test_set.generator],
                size=LABEL_SIZE,
                rotation=90,
                ha="center",
                va="top",
            )
        axes.text(MARGIN, legend_top, legend, size=NUMBER_SIZE, va="top", linespacing=1.3)
    return figure


def _columns(sets: list[TestSet], origin: float, context: EvaluationContext) -> _Columns:
    """Place the columns; a group is followed by as much room as its heading needs."""
    left: list[float] = []
    groups = []
    x = origin
    for title, members in groupby(sets, lambda test_set: group_title(test_set, context)):
        count = len(list(members))
        left += [x + index * CELL_WIDTH for index in range(count)]
        end = x + count * CELL_WIDTH
        title = _wrapped(title, end - x)
        groups.append((title, x, end))
        x = max(end, x + text_width(title, LABEL_SIZE)) + GAP
    return _Columns(sets, left, groups, x - GAP)


def _wrapped(title: str, width: float) -> str:
    """Break the group in a heading into lines no wider than the two lines above it, or the columns."""
    lines = title.split("\n")
    above = "\n".join(lines[:2])
    room = max(width, text_width(above, LABEL_SIZE))
    return "\n".join([above, *(wrap(line, LABEL_SIZE, room) for line in lines[2:])])


def _rows(models: pd.DataFrame, top: float) -> tuple[list[float], float]:
    """Return the upper edges of the rows, with room for a heading before each kind, and the lowest edge."""
    edges: list[float] = []
    y = top
    previous = ""
    for kind in models["kind"]:
        if kind != previous:
            y += 0.22
        previous = kind
        edges.append(y)
        y += CELL_HEIGHT
    return edges, y


def _headings(models: pd.DataFrame, rows: list[float]) -> list[tuple[str, float]]:
    """Return kind and height of the middle of each heading."""
    first = {kind: y for kind, y in zip(reversed(list(models["kind"])), reversed(rows), strict=True)}
    return [(kind, y - 0.1) for kind, y in first.items()]


def _cell(axes: Axes, x: float, y: float, value: float, is_own: bool) -> None:
    if np.isnan(value):
        axes.text(x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2, "–", size=NUMBER_SIZE, ha="center", va="center")
        return
    colour = ABOVE_CHANCE((value - 0.5) * 2) if value >= 0.5 else BELOW_CHANCE((0.5 - value) * 2)
    axes.add_patch(Rectangle((x, y), CELL_WIDTH, CELL_HEIGHT, facecolor=colour, edgecolor="white", lw=0.6))
    if value < 0.5:
        corner = [(x + 0.01, y + 0.01), (x + 0.08, y + 0.01), (x + 0.01, y + 0.08)]
        axes.add_patch(Polygon(corner, facecolor=INK, lw=0))
    if is_own:
        inset = 0.018
        size = CELL_WIDTH - 2 * inset, CELL_HEIGHT - 2 * inset
        axes.add_patch(
            Rectangle((x + inset, y + inset), *size, fill=False, edgecolor="black", lw=1.6, zorder=3)
        )
    axes.text(
        x + CELL_WIDTH / 2,
        y + CELL_HEIGHT / 2 + 0.005,
        number(value),
        size=NUMBER_SIZE,
        ha="center",
        va="center",
        color="white" if _luminance(colour) < 0.22 else INK,
        zorder=4,
    )


def number(value: float) -> str:
    """Return three digits without the leading zero, as in .931; 1.00 for what rounds to one."""
    text = numbers.number(value)
    return text[1:] if text.startswith("0") else "1.00"


def _luminance(colour: tuple[float, float, float, float]) -> float:
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in to_rgb(colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _families(axes: Axes, columns: _Columns, bottom: float) -> None:
    """Bracket neighbouring columns of one family below the cells."""
    starts = {left for _, left, _ in columns.groups}
    run: list[tuple[str, float, float]] = []
    for test_set, x in zip(columns.sets, columns.left, strict=True):
        if run and run[-1][0] == test_set.family and x not in starts:
            run[-1] = (test_set.family, run[-1][1], x + CELL_WIDTH)
        else:
            run.append((test_set.family, x, x + CELL_WIDTH))
    for family, left, right in run:
        axes.plot(
            [left + 0.025, right - 0.025],
            [bottom + 0.035] * 2,
            color=FAMILY_COLOURS.get(family, FAINT),
            lw=2,
            solid_capstyle="butt",
        )
        axes.text((left + right) / 2, bottom + 0.055, family, size=6.5, ha="center", va="top")
