"""AUC and cost while generators arrive one by one."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.style import (
    KIND_COLOURS,
    KIND_MARKERS,
    add_axes,
    method_colour,
    new_figure,
    styled,
    wrap,
)

PARTS = {"seen": "Seen so far", "to_come": "Still to come", "unseen": "Unseen generators"}
PANEL, HEIGHT, GAP, LEFT, RIGHT, TOP = 1.32, 1.75, 0.14, 0.5, 0.12, 0.3
COST_GAP = 0.55
DODGE = 0.06
COLUMNS = 5
KEYS = ["kind", "model"]
NOTE_SIZE = 6.5
NOTE = (
    "Means over random orders of arrival, with the range from the worst order to the best. K = 1 is the one"
    " specialist. Cost: images read by training, validation and tuning in all steps so far; where lines"
    " coincide, the thinner lies upon the wider."
)


# Variants of one method share its colour, not its mark; squares are joint training's.
MARKS = "oD^vP"


class Method(NamedTuple):
    """One line: its rows of the table, and its looks."""

    rows: pd.DataFrame
    colour: str
    marker: str


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw the table of composability: three panels of AUC over K, and one of the cumulated cost."""
    columns = [f"{part}{suffix}" for part in PARTS for suffix in ("", "_low", "_high")]
    # What is missing, as after the last step nothing is to come, was read as empty text.
    table = table.assign(**table[columns].apply(pd.to_numeric))
    methods = _methods(table)
    width = LEFT + 4 * PANEL + 2 * GAP + COST_GAP + RIGHT
    note = wrap(NOTE, NOTE_SIZE, width - 2 * RIGHT)
    below = 0.42 + 0.17 * -(-len(methods) // COLUMNS) + 0.15 * (note.count("\n") + 1)
    with styled():
        figure = new_figure(width, TOP + HEIGHT + below)
        aucs = table[columns].to_numpy(dtype=float)
        limits = float(np.nanmin(aucs)) - 0.02, float(np.nanmax(aucs)) + 0.02
        for index, (part, title) in enumerate(PARTS.items()):
            axes = add_axes(figure, LEFT + index * (PANEL + GAP), TOP, PANEL, HEIGHT)
            _aucs(axes, methods, part)
            _dress(axes, title, table["k"])
            axes.set(ylim=limits, ylabel="" if index else "mean AUC")
            axes.tick_params(labelleft=index == 0)
        axes = add_axes(figure, LEFT + 3 * PANEL + 2 * GAP + COST_GAP, TOP, PANEL, HEIGHT)
        for place, one in enumerate(reversed(methods)):
            axes.plot(one.rows["k"], one.rows["images"] / 1000, color=one.colour, lw=1 + 0.9 * place)
            axes.lines[-1].set_zorder(2 - 0.01 * place)
        _dress(axes, "Images read", table["k"])
        axes.set(ylim=(0, None), ylabel="thousands, cumulated")
        figure.legend(
            handles=[_handle(one) for one in methods],
            loc="upper left",
            bbox_to_anchor=(RIGHT / width, 1 - (TOP + HEIGHT + 0.38) / figure.get_figheight()),
            ncols=COLUMNS,
            borderaxespad=0,
            handlelength=1.6,
            columnspacing=1.2,
        )
        y = 0.08 / figure.get_figheight()
        figure.text(RIGHT / width, y, note, size=NOTE_SIZE, va="bottom", linespacing=1.3)
    return figure


def _methods(table: pd.DataFrame) -> list[Method]:
    found: list[Method] = []
    for (kind, model), rows in table.groupby(KEYS, sort=False):
        colour = method_colour(str(model)) if kind == "merge" else KIND_COLOURS[str(kind)]
        same = sum(one.colour == colour for one in found)
        marker = MARKS[same % len(MARKS)] if kind == "merge" else KIND_MARKERS[str(kind)]
        found.append(Method(rows, colour, marker))
    return found


def _aucs(axes: Axes, methods: list[Method], part: str) -> None:
    """Draw one part: means as lines, ranges over the orders as bars that stand beside each other."""
    for place, (rows, colour, marker) in enumerate(methods):
        x = rows["k"] + (rows["k"] > 1) * DODGE * (place - (len(methods) - 1) / 2)
        axes.vlines(x, rows[f"{part}_low"], rows[f"{part}_high"], color=colour, lw=0.8)
        axes.plot(x, rows[part], marker, ls="-", color=colour, ms=3.2, lw=1)


def _handle(one: Method) -> Line2D:
    label = one.rows["method"].iloc[0]
    return Line2D([], [], marker=one.marker, ms=3.2, lw=1, color=one.colour, label=label)


def _dress(axes: Axes, title: str, k: pd.Series) -> None:
    axes.set_title(title, loc="left")
    axes.set(xlabel="generators K", xlim=(k.min() - 0.3, k.max() + 0.3))
    axes.xaxis.set_major_locator(MaxNLocator(min(8, k.nunique()), integer=True))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
