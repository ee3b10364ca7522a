"""Shifts of features by the parts of R²M: along the separation direction, and whether they add up."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.image_kinds import IMAGE_KINDS
from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments.rationale import BASE
from r2m.report.figures.style import IMAGE_COLOURS as KIND_COLOURS
from r2m.report.figures.style import IMAGE_MARKERS as KIND_MARKS
from r2m.report.figures.style import add_axes, new_figure, styled, text_width, wrap

MARGIN, PANEL, GAP, ROW, HEADING = 0.12, 1.6, 0.2, 0.34, 0.26
LABEL_SIZE, SIZE = 7.5, 6.5
# Measure → its title, and whether it has an interval.
PANELS = {
    "share": ("Share of ‖shift‖²\nalong the direction", True),
    "along": ("Mean shift\nalong it", True),
    "error": ("Relative error of\nthe sum of shifts", False),
}


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw rationale.csv: a row a part of the merge, a mark a kind of image."""
    shown = table[table["part"] != BASE]
    numbers = ["share", "share_low", "share_high", "along", "along_low", "along_high", "error"]
    shown = shown.assign(**shown[numbers].apply(pd.to_numeric))
    blocks = [
        (str(merge), list(dict.fromkeys(part["shift"]))) for merge, part in shown.groupby("merge", sort=False)
    ]
    kinds = [kind for kind in IMAGE_KINDS if (shown["images"] == kind).any()]
    left = MARGIN + max(text_width(text, LABEL_SIZE) for text in [*shown["merge"], *shown["shift"]]) + 0.1
    width = left + len(PANELS) * (PANEL + GAP) - GAP + MARGIN
    body = sum(HEADING + ROW * len(parts) for _, parts in blocks)
    caption = wrap(
        "Shifts of test images' pooled features by the parts of R²M. The direction leads from the merge's"
        f" mean real to its mean fake feature, on val images. Bars: {100 * LEVEL:g} % intervals over people.",
        SIZE,
        width - 2 * MARGIN,
    )
    top, below = 0.34, 0.62 + 0.13 * (caption.count("\n") + 1)
    with styled():
        drawn = new_figure(width, top + body + below)
        panels = {
            measure: add_axes(drawn, left + index * (PANEL + GAP), top, PANEL, body)
            for index, measure in enumerate(PANELS)
        }
        y = 0.0
        for merge, parts in blocks:
            first = panels["share"]
            first.text(
                -0.1 / PANEL,
                y + 0.6 * HEADING,
                merge,
                transform=first.get_yaxis_transform(),
                size=LABEL_SIZE,
                style="italic",
                ha="right",
                va="center",
            )
            y += HEADING
            for name in parts:
                first.text(
                    -0.1 / PANEL,
                    y + ROW / 2,
                    name,
                    transform=first.get_yaxis_transform(),
                    size=LABEL_SIZE,
                    ha="right",
                    va="center",
                )
                rows = shown[(shown["merge"] == merge) & (shown["shift"] == name)]
                for at, (_, row) in enumerate(rows.iterrows()):
                    place = y + ROW * (at + 0.9) / (len(rows) + 0.8)
                    for measure, axes in panels.items():
                        _mark(axes, row, measure, place)
                y += ROW
        for measure, axes in panels.items():
            axes.set(ylim=(body, 0), yticks=[], xlabel=PANELS[measure][0])
            axes.axvline(0, color="#bbbbbb", lw=0.8, zorder=0)
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axes.grid(axis="x")
            axes.set_axisbelow(True)
        height = drawn.get_figheight()
        drawn.legend(
            handles=[
                Line2D([], [], ls="", color=KIND_COLOURS[kind], marker=KIND_MARKS[kind], ms=4, label=title)
                for kind, title in IMAGE_KINDS.items()
                if kind in kinds
            ],
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, 1 - 0.04 / height),
            ncols=len(kinds),
            handletextpad=0.3,
            columnspacing=1.2,
            borderaxespad=0,
        )
        drawn.text(MARGIN / width, 0.08 / height, caption, size=SIZE, va="bottom", linespacing=1.3)
    return drawn


def _mark(axes: Axes, row: pd.Series, measure: str, place: float) -> None:
    """Draw one kind of image of one part."""
    if pd.isna(row[measure]):
        return
    colour = KIND_COLOURS[row["images"]]
    if PANELS[measure][1]:
        axes.plot([row[f"{measure}_low"], row[f"{measure}_high"]], [place, place], color=colour, lw=1.2)
    axes.plot(row[measure], place, KIND_MARKS[row["images"]], color=colour, ms=3.8, mec="white", mew=0.4)
