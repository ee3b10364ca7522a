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
LEGEND = (
    "Faint: the sigmoid of logits; strong: after calibration on val. ECE: expected calibration error, in the"
    " order of the legend."
)
FAINTNESS = 0.3


def draw_reliability(curves: pd.DataFrame, models: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw `curves` (reliability.csv): a panel per model of `models` (models.csv), a curve per protocol."""
    protocols = [name for name in PROTOCOLS if (curves["protocol"] == name).any()]
    titles = [wrap(label, TITLE_SIZE, PANEL) for label in models["label"]]
    # A word that is wider than a panel cannot be wrapped: the panels then stand further apart.
    pitch = max(PANEL, *(text_width(title, TITLE_SIZE) for title in titles)) + GAP_X
    columns = min(COLUMNS, len(models))
    bands = -(-len(models) // columns)
    title_height = 0.14 * max(title.count("\n") + 1 for title in titles) + 0.34
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
            page.text(x, y - 0.32, title, size=TITLE_SIZE, va="bottom", linespacing=1.1)
            axes = add_axes(figure, x, y, PANEL, PANEL)
            axes.plot([0, 1], [0, 1], color=FAINT, lw=0.7, zorder=1)
            colour = model_colour(model["model"], model["kind"], model["method"], context)
            for is_calibrated, above, alpha in ((False, 0.18, FAINTNESS), (True, 0.05, 1.0)):
                own = curves_of_model[curves_of_model["calibrated"] == is_calibrated]
                by_protocol = {name: own[own["protocol"] == name] for name in protocols}
                errors = " · ".join(
                    number(expected_calibration_error(curve), 2).lstrip("0") for curve in by_protocol.values()
                )
                title = f"ECE {'after' if is_calibrated else 'before'} {errors}"
                page.text(
                    x, y - above, title, size=NUMBER_SIZE, va="bottom", color=INK, alpha=max(alpha, 0.6)
                )
                _curves(axes, by_protocol, colour, alpha)
            _frame(axes)
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


def _curves(axes: Axes, by_protocol: dict[str, pd.DataFrame], colour: str, alpha: float) -> None:
    for protocol, curve in by_protocol.items():
        points = curve["probability"], curve["fakes"]
        axes.plot(*points, color=colour, ls=DASHES[protocol], lw=1.0, alpha=alpha, zorder=1 + alpha)
        axes.plot(*points, ".", color=colour, ms=3, mew=0, alpha=alpha, zorder=2 + alpha)


def _frame(axes: Axes) -> None:
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xticklabels(["0", ".5", "1"])
    axes.set_yticklabels(["0", ".5", "1"])
    axes.grid(True)
    axes.set_axisbelow(True)
