"""Dumbbell plot: every merge against weight averaging and against joint training, per group of test sets."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from r2m.errors import R2MError
from r2m.evaluate.protocols import panel_title
from r2m.report.figures.style import (
    FAINT,
    INK,
    KIND_COLOURS,
    add_axes,
    canvas,
    method_colour,
    new_figure,
    styled,
    text_width,
    wrap,
)
from r2m.report.numbers import number

ROW = 0.24
PANEL, NUMBERS, GAP, MARGIN = 1.75, 0.82, 0.22, 0.12
LABEL_SIZE, TITLE_SIZE = 8.0, 8.5


def draw_dumbbell(means: pd.DataFrame) -> Figure:
    """Draw `means` (dumbbell.csv): a panel per group of test sets, a row per joint or merged model.

    The bar of a row runs from weight averaging to the model. A reference that is missing (weight averaging,
    joint training) is left out. All panels share their x axis.
    """
    rows = means[means["kind"].isin(["joint", "merge"])]
    if not (rows["kind"] == "merge").any():
        raise R2MError(
            "dumbbell.csv has no merged model: expected at least one under merge.methods in params.yaml"
        )
    names = list(dict.fromkeys(rows["model"]))
    titles = {panel: _title(panel) for panel in dict.fromkeys(rows["group"])}
    average = rows.loc[rows["method"] == "weight_averaging", "model"]
    reference = average.iloc[0] if len(average) else None
    labels = rows.drop_duplicates("model").set_index("model")["label"]

    left = MARGIN + max(text_width(label, LABEL_SIZE) for label in labels) + 0.12
    title_height = 0.17 * max(title.count("\n") + 1 for title in titles.values()) + 0.3
    body = ROW * len(names) + 0.1
    width = left + len(titles) * (PANEL + NUMBERS + GAP) - GAP + MARGIN
    width = max(width, left + 3.0)
    height = title_height + body + 0.75
    limits = _limits(rows["auc"])

    with styled():
        figure = new_figure(width, height)
        page = canvas(figure)
        for row, name in enumerate(names):
            y = title_height + 0.05 + ROW * (row + 0.5)
            page.text(left - 0.1, y, labels[name], size=LABEL_SIZE, ha="right", va="center_baseline")
        for index, (panel, title) in enumerate(titles.items()):
            x = left + index * (PANEL + NUMBERS + GAP)
            page.text(x, title_height - 0.2, title, size=TITLE_SIZE, va="bottom", linespacing=1.15)
            page.text(x + PANEL + 0.08, title_height - 0.03, "AUC", size=7, color=FAINT, va="bottom")
            if reference is not None:
                page.text(
                    x + PANEL + NUMBERS,
                    title_height - 0.03,
                    "gain",
                    size=7,
                    color=FAINT,
                    ha="right",
                    va="bottom",
                )
            axes = add_axes(figure, x, title_height, PANEL, body)
            _panel(axes, rows[rows["group"] == panel].set_index("model"), names, reference, limits)
        _legend(figure, reference is not None, bool((rows["kind"] == "joint").any()), left / width)
    return figure


def _title(panel: str) -> str:
    """Return the title of a panel in lines that fit above it."""
    lines = panel_title(panel).split("\n")
    return "\n".join(wrap(line, TITLE_SIZE, PANEL + NUMBERS) for line in lines)


def _limits(values: pd.Series) -> tuple[float, float]:
    """Return the common limits of the x axis: the range of the values and some room."""
    span = max(float(values.max() - values.min()), 0.02)
    return float(values.min()) - 0.08 * span, min(float(values.max()) + 0.08 * span, 1.02)


def _panel(
    axes: Axes, group: pd.DataFrame, names: list[str], reference: str | None, limits: tuple[float, float]
) -> None:
    """Draw one group: `group` is indexed by model, rows run downwards in the order of `names`."""
    start = math.nan if reference is None else float(group["auc"].get(reference, math.nan))
    joint = group[group["kind"] == "joint"]["auc"]
    if not math.isnan(start):
        axes.axvline(start, color=method_colour("weight_averaging"), lw=0.8, ls=(0, (4, 2)), zorder=1)
    if len(joint):
        axes.axvline(float(joint.iloc[0]), color=KIND_COLOURS["joint"], lw=0.8, ls=(0, (1, 1.5)), zorder=1)
    for y, name in enumerate(names):
        if name not in group.index:
            continue
        value, kind = float(group["auc"][name]), group["kind"][name]
        colour = KIND_COLOURS["joint"] if kind == "joint" else method_colour(str(group["method"][name]))
        text_style: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "size": 7,
            "va": "center",
            "clip_on": False,
        }
        axes.text(1 + 0.08 / PANEL, y, number(value), ha="left", **text_style)
        if not math.isnan(start) and name != reference:
            axes.plot(
                [start, value], [y, y], color=colour, lw=2.2, alpha=0.45, solid_capstyle="butt", zorder=2
            )
            axes.plot(
                start, y, "o", ms=3.5, mfc="white", mec=method_colour("weight_averaging"), mew=0.9, zorder=3
            )
            gain = number(value - start, signed=True).replace("-", "−")
            axes.text(1 + NUMBERS / PANEL, y, gain, ha="right", **text_style)
        axes.plot(
            value, y, "s" if kind == "joint" else "o", ms=5.5, color=colour, mec="white", mew=0.5, zorder=4
        )
    axes.set(
        ylim=(len(names) - 0.5 + 0.05 / ROW, -0.5 - 0.05 / ROW), xlim=limits, yticks=[], xlabel="mean AUC"
    )
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure, has_average: bool, has_joint: bool, left: float) -> None:
    handles = [Line2D([], [], marker="o", ms=5.5, ls="", color=INK, label="merged model")]
    if has_average:
        colour = method_colour("weight_averaging")
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                ms=3.5,
                mfc="white",
                color=colour,
                lw=0.8,
                ls=(0, (4, 2)),
                label="weight averaging",
            )
        )
    if has_joint:
        handles.append(
            Line2D([], [], marker="s", ms=5, color="black", lw=0.8, ls=(0, (1, 1.5)), label="joint training")
        )
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(left, 0), ncols=3, borderaxespad=0.3)
