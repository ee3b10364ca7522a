"""Singular values of task vectors and of their residuals, per type of layer, with the rank that is kept."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.style import (
    FAINT,
    FAMILY_COLOURS,
    INK,
    add_axes,
    canvas,
    new_figure,
    styled,
    text_width,
)

COLUMNS = 4
PANEL_WIDTH, PANEL_HEIGHT = 1.65, 1.25
GAP_X, GAP_Y, BAND_GAP = 0.14, 0.1, 0.5
LEFT, RIGHT, TOP, LEGEND_LINE = 0.82, 0.15, 0.32, 0.17
DECADES = 4
DASHES: list[str | tuple[float, tuple[float, ...]]] = ["-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1))]
SPECTRA = ("task_vector_values", "residual_values")
ROWS = {"task_vector": "task vector", "residual": "residual"}


@dataclass(frozen=True)
class Spectrum:
    """Median over the matrices of one type: singular values (n,) of τ and of F, and the kept rank."""

    task_vector: NDArray[np.float64]
    residual: NDArray[np.float64]
    rank: float


def read_report(path: str | Path) -> dict[str, Any]:
    """Read the report of a residual; raises R2MError if its `matrices` lack the spectra."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        matrices = report["matrices"]
        complete = all({"rank", *SPECTRA} <= matrix.keys() for matrix in matrices.values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise R2MError(f"{path}: not the report of a residual: {error!r}") from error
    if not complete or not matrices:
        raise R2MError(f"{path}: expected rank, {' and '.join(SPECTRA)} for every entry of `matrices`")
    return report


def layer_type(name: str) -> str:
    """Name of a tensor without its place in the network: `blocks.9.attn.qkv.weight` → `attn.qkv`."""
    parts = [part for part in name.removesuffix(".weight").split(".") if not re.fullmatch(r"\d+", part)]
    return ".".join(parts[-2:])


def spectra_by_type(report: Mapping[str, Any]) -> dict[str, Spectrum]:
    """Median spectra of one specialist per type of layer, cut to the shortest of the type."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for name, matrix in report["matrices"].items():
        grouped.setdefault(layer_type(name), []).append(matrix)
    return {
        layer: Spectrum(
            _median([matrix[SPECTRA[0]] for matrix in matrices]),
            _median([matrix[SPECTRA[1]] for matrix in matrices]),
            float(np.median([matrix["rank"] for matrix in matrices])),
        )
        for layer, matrices in grouped.items()
    }


def _median(lists: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    shortest = min(map(len, lists))
    return np.median(np.array([values[:shortest] for values in lists], dtype=np.float64), axis=0)


def draw_spectra(
    reports: Mapping[str, Mapping[str, Any]], context: EvaluationContext, title: str = ""
) -> Figure:
    """Draw `reports` (specialist → report of its residual): two rows of panels per four types of layers.

    Both axes are logarithmic and shared. The dot is the kept rank; what truncation drops is faint.
    """
    curves = {name: spectra_by_type(report) for name, report in reports.items()}
    layers = list(dict.fromkeys(layer for types in curves.values() for layer in types))
    bands = [layers[start : start + COLUMNS] for start in range(0, len(layers), COLUMNS)]
    looks = _looks(list(reports), context)
    columns = max(map(len, bands))
    width = max(LEFT + columns * (PANEL_WIDTH + GAP_X) - GAP_X + RIGHT, 4.2)
    top = TOP + (0.25 if title else 0)
    band_height = 2 * PANEL_HEIGHT + GAP_Y
    body = len(bands) * (band_height + BAND_GAP)
    labels = {name: context.generator_label(name) for name in reports}
    per_line = max(1, int((width - LEFT) / (max(text_width(label, 7) for label in labels.values()) + 0.55)))
    legend_lines = math.ceil(len(labels) / per_line)
    height = top + body + LEGEND_LINE * legend_lines + 0.1
    limits = _limits(curves)

    with styled():
        figure = new_figure(width, height)
        page = canvas(figure)
        if title:
            page.text(LEFT, 0.12, title, size=9, va="top")
        for band, members in enumerate(bands):
            y = top + band * (band_height + BAND_GAP)
            for column, layer in enumerate(members):
                x = LEFT + column * (PANEL_WIDTH + GAP_X)
                page.text(x, y - 0.07, layer, size=8.5, va="baseline")
                for row, (which, row_title) in enumerate(ROWS.items()):
                    at = y + row * (PANEL_HEIGHT + GAP_Y)
                    axes = add_axes(figure, x, at, PANEL_WIDTH, PANEL_HEIGHT)
                    for name, types in curves.items():
                        if layer in types:
                            _draw(axes, types[layer], which, looks[name])
                    _finish(axes, limits, first=column == 0, last=row == 1, title=row_title)
        handles = [
            Line2D([], [], color=looks[name][0], ls=looks[name][1], lw=1.3, label=labels[name])
            for name in reports
        ]
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(LEFT / width, 0),
            ncols=per_line,
            borderaxespad=0.6,
        )
    return figure


def _looks(names: Sequence[str], context: EvaluationContext) -> dict[str, tuple[str, Any]]:
    """Colour by family, dashes by place within it; darker when all dashes are used up."""
    count: dict[str, int] = {}
    looks: dict[str, tuple[str, Any]] = {}
    for name in names:
        family = context.generators[name].family if name in context.generators else ""
        cycle, dashes = divmod(count.get(family, 0), len(DASHES))
        red, green, blue = (part * 0.6**cycle for part in to_rgb(FAMILY_COLOURS.get(family, FAINT)))
        looks[name] = to_hex((red, green, blue)), DASHES[dashes]
        count[family] = count.get(family, 0) + 1
    return looks


def _limits(curves: Mapping[str, Mapping[str, Spectrum]]) -> tuple[float, float, float]:
    """Greatest index, and the range of values: from the greatest down to what is seen of four decades."""
    each = [spectrum for types in curves.values() for spectrum in types.values()]
    values = np.concatenate([np.concatenate([spectrum.task_vector, spectrum.residual]) for spectrum in each])
    high = float(values.max()) if values.size and values.max() > 0 else 1.0
    visible = values[values > high / 10**DECADES]
    low = float(visible.min()) if visible.size else high / 10
    return max(len(spectrum.task_vector) for spectrum in each), low / 1.3, high * 1.5


def _draw(axes: Axes, spectrum: Spectrum, which: str, look: tuple[str, Any]) -> None:
    values = spectrum.task_vector if which == "task_vector" else spectrum.residual
    index = np.arange(1, len(values) + 1)
    values = np.where(values > 0, values, np.nan)
    colour, dashes = look
    if which == "task_vector":
        axes.plot(index, values, color=colour, ls=dashes, lw=1.1)
        return
    kept = min(round(spectrum.rank), len(values))
    axes.plot(index[:kept], values[:kept], color=colour, ls=dashes, lw=1.3)
    axes.plot(
        index[max(kept - 1, 0) :], values[max(kept - 1, 0) :], color=colour, ls=dashes, lw=0.9, alpha=0.35
    )
    if kept:
        axes.plot(kept, values[kept - 1], "o", ms=3.8, color=colour, mec="white", mew=0.5, zorder=3)


def _finish(axes: Axes, limits: tuple[float, float, float], first: bool, last: bool, title: str) -> None:
    length, low, high = limits
    axes.set(xscale="log", yscale="log", xlim=(0.9, length * 1.1), ylim=(low, high))
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.tick_params(which="minor", length=0)
    axes.tick_params(labelleft=first, labelbottom=last)
    if first:
        axes.set_ylabel(f"{title}\nsingular value", color=INK)
    if last:
        axes.set_xlabel("index", labelpad=1)
