"""Forest plot: the mean AUC of every model under every protocol, with its confidence interval."""

from itertools import groupby

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.protocols import KINDS, PROTOCOLS, EvaluationContext
from r2m.report.figures.style import (
    FAINT,
    INK,
    KIND_MARKERS,
    add_axes,
    canvas,
    model_colour,
    new_figure,
    styled,
    text_width,
)
from r2m.report.numbers import number

ROW = 0.21
PANEL, NUMBERS, GAP, MARGIN = 1.75, 1.2, 0.22, 0.12
LABEL_SIZE = 8.0
NUMBER_SIZE = 7.0


def draw_forest(means: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw `means` (intervals.csv): a panel per protocol, a row per model, models grouped by kind.

    All panels share their x axis. The dashed line is the mean of the reference, where there is one.
    """
    rows = means[means["part"] == "mean"]
    models = rows.drop_duplicates("model")
    protocols = [name for name in PROTOCOLS if (rows["protocol"] == name).any()]
    places, headings, lines = _places(models)
    references = set(rows["reference"]) - {""}
    labels = [*models["label"], *KINDS.values()]

    left = MARGIN + max(text_width(label, LABEL_SIZE) for label in labels) + 0.12
    top, body = 0.5, ROW * lines + 0.1
    width = max(left + len(protocols) * (PANEL + NUMBERS + GAP) - GAP + MARGIN, left + 3.0)
    limits = _limits(rows)
    label_of = models.set_index("model")["label"]
    names = " and ".join(label_of[name] for name in sorted(references & set(label_of.index)))
    note = f"dashed: mean of {names}, which the others are tested against" if names else ""

    with styled():
        figure = new_figure(width, top + body + 0.45 + (0.18 if note else 0))
        page = canvas(figure)
        for text, line, style in [
            *((KINDS[kind], line, "italic") for kind, line in headings),
            *zip(models["label"], places, ["normal"] * len(models), strict=True),
        ]:
            y = top + 0.05 + ROW * (line + 0.5)
            page.text(left - 0.1, y, text, size=LABEL_SIZE, ha="right", va="center_baseline", style=style)
        for index, protocol in enumerate(protocols):
            x = left + index * (PANEL + NUMBERS + GAP)
            page.text(x, top - 0.2, PROTOCOLS[protocol], size=8.5, va="bottom")
            for offset, title, side in (
                (0.08, "AUC", "left"),
                (NUMBERS, f"{100 * LEVEL:g} % interval", "right"),
            ):
                page.text(x + PANEL + offset, top - 0.03, title, size=7, color=FAINT, ha=side, va="bottom")
            axes = add_axes(figure, x, top, PANEL, body)
            shown = rows[rows["protocol"] == protocol].set_index("model").loc[models["model"]]
            _panel(axes, shown, places, references, context)
            axes.set(xlim=limits, ylim=(lines - 0.5 + 0.05 / ROW, -0.5 - 0.05 / ROW))
        page.text(
            width - MARGIN, top + body + 0.55, note, size=NUMBER_SIZE, color=FAINT, ha="right", va="center"
        )
    return figure


def _places(models: pd.DataFrame) -> tuple[list[int], list[tuple[str, int]], int]:
    """Return the line of every model, (kind, line) of every heading, and the number of lines."""
    places: list[int] = []
    headings = []
    line = 0
    for kind, members in groupby(models["kind"]):
        headings.append((kind, line))
        count = len(list(members))
        places += range(line + 1, line + 1 + count)
        line += 1 + count
    return places, headings, line


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the common limits of the x axis: the range of the intervals and some room."""
    low, high = float(rows["low"].min()), float(rows["high"].max())
    room = 0.05 * max(high - low, 0.02)
    return low - room, high + room


def _panel(
    axes: Axes, shown: pd.DataFrame, places: list[int], references: set[str], context: EvaluationContext
) -> None:
    """Draw one protocol: `shown` is indexed by model, its rows stand on the lines `places`."""
    for name in sorted(references & set(shown.index)):
        colour = model_colour(name, shown["kind"][name], shown["method"][name], context)
        axes.axvline(float(shown["auc"][name]), color=colour, lw=0.8, ls=(0, (4, 2)), zorder=1)
    for y, row in zip(places, shown.reset_index().to_dict("records"), strict=True):
        colour = model_colour(row["model"], row["kind"], row["method"], context)
        axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.6, solid_capstyle="butt", zorder=2)
        axes.plot(
            row["auc"], y, KIND_MARKERS[row["kind"]], ms=5, color=colour, mec="white", mew=0.5, zorder=3
        )
        for offset, text, side in (
            (0.08, number(row["auc"]), "left"),
            (NUMBERS, f"{number(row['low'])}–{number(row['high'])}", "right"),
        ):
            axes.text(
                1 + offset / PANEL,
                y,
                text,
                size=NUMBER_SIZE,
                color=INK,
                ha=side,
                va="center",
                transform=axes.get_yaxis_transform(),
                clip_on=False,
            )
    axes.set(yticks=[], xlabel="mean AUC")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
