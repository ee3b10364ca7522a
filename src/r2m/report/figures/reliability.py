"""Reliability curves: how often images are fake among those that a model gives a probability."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from r2m.evaluate.calibration import expected_calibration_error
from r2m.evaluate.protocols import PROTOCOLS, EvaluationContext
from r2m.report.figures.style import (
    FAINT,
    INK,
    add_axes,
    canvas,
    model_colour,
    new_figure,
    styled,
    text_width,
    wrap,
)
from r2m.report.numbers import number

COLUMNS = 5
PANEL, GAP_X, LEFT, MARGIN = 1.25, 0.22, 0.5, 0.12
TITLE_SIZE, NUMBER_SIZE = 8.0, 7.0
DASHES = dict(zip(PROTOCOLS, ("-", (0, (3, 1.2)), (0, (1, 1.2))), strict=True))
LEGEND = "ECE: expected calibration error, in the order of the legend."


def draw_reliability(curves: pd.DataFrame, models: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw `curves` (reliability.csv): a panel per model of `models` (models.csv), a curve per protocol."""
    protocols = [name for name in PROTOCOLS if (curves["protocol"] == name).any()]
    titles = [wrap(label, TITLE_SIZE, PANEL) for label in models["label"]]
    # A word that is wider than a panel cannot be wrapped: the panels then stand further apart.
    pitch = max(PANEL, *(text_width(title, TITLE_SIZE) for title in titles)) + GAP_X
    columns = min(COLUMNS, len(models))
    bands = -(-len(models) // columns)
    title_height = 0.14 * max(title.count("\n") + 1 for title in titles) + 0.22
    band = title_height + PANEL + 0.24
    legend_width = max(text_width(PROTOCOLS[name], 7) for name in protocols) + 0.5
    width = max(LEFT + columns * pitch - GAP_X + MARGIN, LEFT + legend_width + 1.0)
    per_line = max(1, int((width - LEFT) / legend_width))
    legend_lines = -(-len(protocols) // per_line)
    note = wrap(LEGEND, NUMBER_SIZE, width - LEFT - MARGIN)
    note_height = 0.14 * (note.count("\n") + 1)
    below = MARGIN + bands * band
    height = below + 0.28 + 0.17 * legend_lines + note_height + 0.15

    with styled():
        figure = new_figure(width, height)
        page = canvas(figure)
        for index, (model, title) in enumerate(zip(models.to_dict("records"), titles, strict=True)):
            row, column = divmod(index, columns)
            x, y = LEFT + column * pitch, MARGIN + row * band + title_height
            curves_of_model = curves[curves["model"] == model["model"]]
            by_protocol = {name: curves_of_model[curves_of_model["protocol"] == name] for name in protocols}
            errors = " · ".join(
                number(expected_calibration_error(curve), 2).lstrip("0") for curve in by_protocol.values()
            )
            page.text(x, y - 0.2, title, size=TITLE_SIZE, va="bottom", linespacing=1.1)
            page.text(x, y - 0.05, f"ECE {errors}", size=NUMBER_SIZE, va="bottom", color=INK)
            axes = add_axes(figure, x, y, PANEL, PANEL)
            colour = model_colour(model["model"], model["kind"], model["method"], context)
            _panel(axes, by_protocol, colour)
            axes.tick_params(labelleft=column == 0, labelbottom=index + columns >= len(models))
            if column == 0:
                axes.set_ylabel("share of fakes", labelpad=2)
        page.text(LEFT, below + 0.14, "probability of being fake", size=8, va="center")
        handles = [
            Line2D([], [], color=INK, ls=DASHES[name], lw=1.1, label=PROTOCOLS[name]) for name in protocols
        ]
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(LEFT / width, (note_height + 0.08) / height),
            ncols=per_line,
            borderaxespad=0,
        )
        page.text(LEFT, height - 0.06, note, size=NUMBER_SIZE, va="bottom")
    return figure


def _panel(axes: Axes, by_protocol: dict[str, pd.DataFrame], colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, lw=0.7, zorder=1)
    for protocol, curve in by_protocol.items():
        axes.plot(curve["probability"], curve["fakes"], color=colour, ls=DASHES[protocol], lw=1.0, zorder=2)
        axes.plot(curve["probability"], curve["fakes"], ".", color=colour, ms=3, mew=0, zorder=3)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xticklabels(["0", ".5", "1"])
    axes.set_yticklabels(["0", ".5", "1"])
    axes.grid(True)
    axes.set_axisbelow(True)
