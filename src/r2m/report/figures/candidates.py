"""Validation AUC of every candidate that was tried for a merge."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from r2m.errors import R2MError
from r2m.options import scalar
from r2m.report.figures.style import (
    FAINT,
    INK,
    add_axes,
    canvas,
    method_colour,
    new_figure,
    styled,
    text_width,
    wrap,
)

MEAN, PER_GENERATOR, CHOSEN = "val_auc", "val_auc.", "chosen"
COLUMNS = 4
PANEL_HEIGHT, CANDIDATE, LEAST_WIDTH = 1.5, 0.24, 1.5
GAP_X, LEFT, RIGHT = 0.25, 0.55, 0.15
TITLE_SIZE, TICK_SIZE = 8.5, 7.0


def read_candidates(path: str | Path) -> pd.DataFrame:
    """Read the candidates of one variant; raises R2MError unless there is a val_auc and one chosen row."""
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: not a table of candidates: {error}") from error
    missing = [name for name in ("candidate", MEAN, CHOSEN) if name not in frame]
    if missing:
        raise R2MError(
            f"{path}: expected the columns candidate, {MEAN} and {CHOSEN}; missing: {', '.join(missing)}"
        )
    if frame[CHOSEN].astype(bool).sum() != 1:
        raise R2MError(f"{path}: expected exactly one row with chosen = True")
    return frame


def tuned_options(candidates: pd.DataFrame) -> list[str]:
    """Return the columns that hold the tuned options."""
    columns = map(str, candidates.columns)
    fixed = ("candidate", MEAN, CHOSEN)
    return [name for name in columns if name not in fixed and not name.startswith(PER_GENERATOR)]


def draw_candidates(candidates: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> Figure:
    """Draw a panel per variant (name → its candidates), on one y axis, in the order of `labels`."""
    order = [*labels, *candidates]
    variants = {name: candidates[name] for name in sorted(candidates, key=order.index)}
    ticks = {name: _tick_labels(frame) for name, frame in variants.items()}
    widths = {name: max(LEAST_WIDTH, CANDIDATE * len(frame)) for name, frame in variants.items()}
    titles = {
        name: wrap(labels.get(name, name).replace("_", " "), TITLE_SIZE, widths[name]) for name in variants
    }
    names = {name: _axis_title(frame, widths[name]) for name, frame in variants.items()}
    bands = [list(variants)[start : start + COLUMNS] for start in range(0, len(variants), COLUMNS)]
    limits = _limits(variants)

    title_height = 0.15 * max(title.count("\n") + 1 for title in titles.values()) + 0.15
    tick_height = max(text_width(label, TICK_SIZE) for labels in ticks.values() for label in labels) + 0.12
    name_height = 0.14 * max(text.count("\n") + 1 for text in names.values()) + 0.1
    band_height = title_height + PANEL_HEIGHT + tick_height + name_height
    width = LEFT + max(sum(widths[name] + GAP_X for name in band) for band in bands) - GAP_X + RIGHT
    width = max(width, LEFT + 3.4)
    height = band_height * len(bands) + 0.35

    with styled():
        figure = new_figure(width, height)
        page = canvas(figure)
        for row, band in enumerate(bands):
            x = LEFT
            top = row * band_height + title_height
            for column, name in enumerate(band):
                page.text(x, top - 0.07, titles[name], size=TITLE_SIZE, va="bottom", linespacing=1.1)
                axes = add_axes(figure, x, top, widths[name], PANEL_HEIGHT)
                _panel(axes, variants[name], method_colour(name), ticks[name])
                axes.set_ylim(*limits)
                axes.tick_params(labelleft=column == 0)
                if column == 0:
                    axes.set_ylabel("val AUC")
                below = top + PANEL_HEIGHT + tick_height
                page.text(x, below, names[name], size=TICK_SIZE, va="top", linespacing=1.15)
                x += widths[name] + GAP_X
        _legend(figure, variants, LEFT / width)
    return figure


def _tick_labels(candidates: pd.DataFrame) -> list[str]:
    options = tuned_options(candidates)
    if not options:
        return ["fixed"] * len(candidates)
    return [
        " · ".join(_value(value) for value in row)
        for row in candidates[options].itertuples(index=False, name=None)
    ]


def _value(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:g}"
    return scalar(value)


def _axis_title(candidates: pd.DataFrame, width: float) -> str:
    """Return the names of the tuned options in the order of the tick labels, wrapped where they are long."""
    return wrap(" · ".join(tuned_options(candidates)), TICK_SIZE, width)


def _limits(variants: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    shown = [frame.filter(regex=rf"^{MEAN}(\.|$)").to_numpy(float).ravel() for frame in variants.values()]
    low, high = min(float(values.min()) for values in shown), max(float(values.max()) for values in shown)
    room = max(0.06 * (high - low), 0.02 - (high - low) / 2)
    return low - room, high + room


def _panel(axes: Axes, candidates: pd.DataFrame, colour: str, ticks: list[str]) -> None:
    places = range(len(candidates))
    for name in candidates.filter(regex=rf"^{MEAN}\.").columns:
        axes.plot(places, candidates[name], "_", color=FAINT, ms=5, mew=0.8, zorder=1)
    axes.plot(places, candidates[MEAN], "-o", color=colour, lw=1.1, ms=4, zorder=2)
    chosen = int(candidates[CHOSEN].astype(bool).to_numpy().argmax())
    best = float(candidates[MEAN].iloc[chosen])
    axes.plot(chosen, best, "o", ms=9, mfc="none", mec=INK, mew=1.1, zorder=3)
    axes.set_xlim(-0.6, len(candidates) - 0.4)
    axes.set_xticks(list(places), ticks, rotation=90)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _legend(figure: Figure, variants: Mapping[str, pd.DataFrame], left: float) -> None:
    handles = [
        Line2D([], [], marker="o", ms=4, color=INK, lw=1.1, label="mean"),
        Line2D([], [], marker="o", ms=9, mfc="none", mec=INK, mew=1.1, ls="", label="chosen"),
    ]
    if any(frame.filter(regex=rf"^{MEAN}\.").shape[1] for frame in variants.values()):
        handles.append(Line2D([], [], marker="_", ms=5, color=FAINT, ls="", label="one generator"))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(left, 0), ncols=3, borderaxespad=0.5)
