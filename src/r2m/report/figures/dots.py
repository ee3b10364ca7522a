"""Rows of labelled dots: one row per setting, one mark per series, numbers of the first beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from r2m.report.figures.style import FAINT, INK, add_axes, new_figure, styled, text_width, wrap
from r2m.report.numbers import number

ROW, HEADING, MARGIN, PANEL, NUMBER = 0.19, 0.26, 0.12, 3.0, 0.36
LABEL_SIZE, NUMBER_SIZE = 7.5, 6.5


@dataclass(frozen=True)
class Series:
    """One mark: its name, colour and shape, filled or not, and a value (NaN for none) for each row.

    `low` and `high`, where given, are limits of an interval for each row.
    """

    name: str
    values: Sequence[float]
    colour: str = INK
    marker: str = "o"
    filled: bool = True
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


# Protocols keep one mark each in all such figures; val, on which choices rest, is hollow.
PROTOCOL_MARKS = {
    "val_auc": ("o", False),
    "in_distribution": ("o", True),
    "unseen_generator": ("^", True),
    "cross_dataset": ("s", True),
}
PROTOCOL_COLOURS = {
    "val_auc": INK,
    "in_distribution": INK,
    "unseen_generator": "#7a7a7a",
    "cross_dataset": "#a8a8a8",
}


def dot_rows(
    sections: Sequence[str],
    labels: Sequence[str],
    series: Sequence[Series],
    legend: str,
    chance: bool = False,
    measure: str = "AUC",
) -> Figure:
    """Draw rows named `labels` under the headings `sections` (one per row, equal ones together).

    The numbers at the right are those of the first series. `measure` is what they are of, and `chance` marks
    0.5.
    """
    blocks = [(heading, len(list(rows))) for heading, rows in groupby(sections)]
    left = MARGIN + max(text_width(text, LABEL_SIZE) for text in [*labels, "–"]) + 0.1
    width = left + PANEL + NUMBER + MARGIN
    caption = wrap(legend, NUMBER_SIZE, width - 2 * MARGIN)
    marks_rows = -(-len(series) // 3)
    marks = 0.17 * marks_rows + 0.06
    body = len(labels) * ROW + len(blocks) * HEADING
    below = 0.42 + 0.14 * (caption.count("\n") + 1)
    with styled():
        figure = new_figure(width, MARGIN + marks + body + below)
        axes = add_axes(figure, left, MARGIN + marks, PANEL, body)
        places = _places(axes, blocks, body)
        values = np.array([mark.values for mark in series], dtype=float)
        for row, (y, label) in enumerate(zip(places, labels, strict=True)):
            axes.text(-0.1 / PANEL, y, label, transform=axes.get_yaxis_transform(), **_text("right"))
            axes.axhline(y, color="#eeeeee", lw=0.6, zorder=0)
            if np.isfinite(values[0, row]):
                text = number(values[0, row])
                axes.text(1 + 0.06 / PANEL, y, text, transform=axes.get_yaxis_transform(), **_text("left"))
        for mark in reversed(series):
            if mark.low is not None and mark.high is not None:
                axes.hlines(places, mark.low, mark.high, color=mark.colour, lw=0.9)
            face = mark.colour if mark.filled else "white"
            axes.plot(
                mark.values,
                places,
                mark.marker,
                color=mark.colour,
                markerfacecolor=face,
                markersize=4.2,
                ls="",
            )
        if chance:
            axes.axvline(0.5, color=FAINT, lw=0.8, ls="--", zorder=0)
        limits = [limit for mark in series for limit in (mark.low, mark.high) if limit is not None]
        shown = np.concatenate([values.ravel(), *(np.array(limit, dtype=float) for limit in limits)])
        low, high = np.nanmin(shown), np.nanmax(shown)
        pad = max(0.02, 0.06 * (high - low))
        axes.set(xlim=(low - pad, min(high + pad, 1.02)), ylim=(body, 0), yticks=[], xlabel=measure)
        axes.spines["left"].set_visible(False)
        figure.legend(
            handles=[_handle(mark) for mark in series],
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, 1 - 0.04 / figure.get_figheight()),
            ncols=3,
            handletextpad=0.3,
            columnspacing=1.2,
            borderaxespad=0,
        )
        figure.text(
            MARGIN / width,
            0.08 / figure.get_figheight(),
            caption,
            size=NUMBER_SIZE,
            va="bottom",
            linespacing=1.3,
        )
    return figure


def _places(axes: Axes, blocks: Sequence[tuple[str, int]], body: float) -> list[float]:
    """Write the headings; return the middle of every row in inches from the top of the axes."""
    places: list[float] = []
    y = 0.0
    for heading, count in blocks:
        axes.text(
            0,
            y + HEADING * 0.62,
            heading,
            transform=axes.get_yaxis_transform(),
            style="italic",
            **_text("left"),
        )
        y += HEADING
        places += [y + ROW * (row + 0.5) for row in range(count)]
        y += ROW * count
    return places


def _text(align: str) -> dict[str, Any]:
    return {"ha": align, "va": "center", "size": LABEL_SIZE}


def _handle(mark: Series) -> Line2D:
    face = mark.colour if mark.filled else "white"
    return Line2D([], [], ls="", marker=mark.marker, color=mark.colour, markerfacecolor=face, label=mark.name)
