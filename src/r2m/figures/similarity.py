"""Similarity of features over layers, Real against Fake: a row of panels a measure."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.image_kinds import IMAGE_KINDS
from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.style import FAINT, add_axes, new_figure, styled, text_width, wrap
from r2m.report.figures.style import IMAGE_COLOURS as KIND_COLOURS
from r2m.report.figures.style import IMAGE_MARKERS as KIND_MARKS
from r2m.tables.similarity import MEAN

MARGIN, PANEL, HEIGHT, GAP, TICKS, HEADING = 0.12, 1.42, 1.0, 0.16, 0.36, 0.42
SIZE, LEGEND = 6.5, 3.8


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw similarity.csv: a column a compared model, a row a measure, a line a kind of images."""
    means = table[table["specialist"] == MEAN]
    kinds = [kind for kind in IMAGE_KINDS if kind in means]
    numbers = [f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high")]
    means = means.assign(**means[numbers].apply(pd.to_numeric))
    columns, rows = list(means["compared"].unique()), list(means["quantity"].unique())
    left = MARGIN + TICKS + 0.2
    width = max(left + len(columns) * (PANEL + GAP) - GAP + MARGIN, LEGEND)
    caption = wrap(
        "Similarity of specialists' features to those of other models on the same test images, mean over"
        f" specialists. Bands: {100 * LEVEL:g} % intervals over people. Panels of a row share their axis.",
        SIZE,
        width - 2 * MARGIN,
    )
    top = HEADING + 0.14 * max(title.count("\n") for title in map(_wrapped, columns))
    ticks = 0.5
    below = 0.12 + 0.13 * (caption.count("\n") + 1)
    height = top + len(rows) * (HEIGHT + GAP) - GAP + ticks + below
    with styled():
        drawn = new_figure(width, height)
        for row, quantity in enumerate(rows):
            shown = means[means["quantity"] == quantity]
            limits = _limits(shown, kinds)
            for column, compared in enumerate(columns):
                part = shown[shown["compared"] == compared]
                if part.empty:  # the base has no shifts to compare
                    drawn.text(
                        (left + column * (PANEL + GAP) + PANEL / 2) / width,
                        1 - (top + row * (HEIGHT + GAP) + HEIGHT / 2) / height,
                        "none to compare",
                        ha="center",
                        va="center",
                        size=SIZE,
                        color=FAINT,
                    )
                    continue
                axes = add_axes(
                    drawn, left + column * (PANEL + GAP), top + row * (HEIGHT + GAP), PANEL, HEIGHT
                )
                _panel(axes, part, kinds)
                axes.set_ylim(limits)
                first = column == min(
                    index for index, name in enumerate(columns) if (shown["compared"] == name).any()
                )
                axes.tick_params(labelsize=6.5, labelleft=first, labelbottom=row == len(rows) - 1)
                if first:
                    axes.set_ylabel(quantity)
                if row == len(rows) - 1:
                    axes.set_xlabel("output of block" if len(part) > 1 else "")
        for column, compared in enumerate(columns):
            drawn.text(
                (left + column * (PANEL + GAP) + PANEL / 2) / width,
                1 - (top - 0.06) / height,
                _wrapped(compared),
                ha="center",
                va="bottom",
                size=8,
            )
        drawn.legend(
            handles=[
                Line2D([], [], color=KIND_COLOURS[kind], marker=KIND_MARKS[kind], ms=3.5, label=title)
                for kind, title in IMAGE_KINDS.items()
                if kind in kinds
            ],
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, 1 - 0.03 / height),
            ncols=4,
            columnspacing=1.2,
            borderaxespad=0,
        )
        drawn.text(MARGIN / width, 0.08 / height, caption, size=SIZE, va="bottom", linespacing=1.3)
    return drawn


def _panel(axes: Axes, part: pd.DataFrame, kinds: list[str]) -> None:
    """Draw the lines of one compared model and measure, `part` having a row a layer."""
    places = range(len(part))
    for kind in kinds:
        colour = KIND_COLOURS[kind]
        axes.fill_between(places, part[f"{kind}_low"], part[f"{kind}_high"], color=colour, alpha=0.12, lw=0)
        axes.plot(places, part[kind], color=colour, marker=KIND_MARKS[kind], ms=3, lw=1)
    names = [name.removeprefix("blocks.") for name in part["layer"]]
    axes.set_xticks(list(places), names)
    axes.set_xlim(-0.3, len(part) - 0.7 + 0.3)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _limits(shown: pd.DataFrame, kinds: list[str]) -> tuple[float, float]:
    values = shown[[f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high")]].to_numpy(float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * max(high - low, 0.02)
    return low - room, high + room


def _wrapped(title: str) -> str:
    return wrap(title, 8, max(PANEL, max(text_width(word, 8) for word in title.split())))
