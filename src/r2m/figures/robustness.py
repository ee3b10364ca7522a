"""AUC against the level of perturbation: a column a perturbation, a row a protocol, a line a model."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from r2m.evaluate.protocols import PROTOCOLS, EvaluationContext
from r2m.report.figures.style import KIND_COLOURS, add_axes, method_colour, new_figure, styled, wrap

CLEAN = "clean"
TITLES = {
    "jpeg": "JPEG quality",
    "blur": "Blur σ (px)",
    "noise": "Noise σ",
    "resize": "Scaled down to",
    "saturation": "Saturation",
    "contrast": "Contrast",
}
STYLES = {"base": ":", "joint": "--"}
MARGIN, GAP, LEFT, HEIGHT, WIDTH = 0.1, 0.12, 0.56, 1.35, 7.0


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw table.csv of the experiment, each panel beginning with the images as they are."""
    protocols = [name for name in PROTOCOLS if name in table]
    kinds = [name for name in dict.fromkeys(table["perturbation"]) if name != CLEAN]
    names = table.drop_duplicates("model").set_index("model")["name"]
    clean = table[table["perturbation"] == CLEAN]
    counts = [table.loc[table["perturbation"] == kind, "level"].nunique() for kind in kinds]
    free = WIDTH - LEFT - MARGIN - GAP * (len(kinds) - 1)
    # Panels are as wide as they have levels, and never too narrow for their title.
    shares = np.maximum(np.array(counts) + 1.0, 4.0)
    widths = free * shares / shares.sum()
    legend = wrap(
        "Mean AUC over the test sets of a protocol; bands: 95 % intervals from resampled people. The first"
        " point (–) of every panel is of the images as they are.",
        6.5,
        WIDTH - 2 * MARGIN,
    )
    above, between = 0.42 + 0.16 * ((len(names) - 1) // 6), 0.34
    below = 0.4 + 0.13 * (legend.count("\n") + 1)
    total = above + len(protocols) * HEIGHT + (len(protocols) - 1) * between + below
    with styled():
        made = new_figure(WIDTH, total)
        for row, protocol in enumerate(protocols):
            low, high = table[f"{protocol}_low"].min(), table[f"{protocol}_high"].max()
            for column, kind in enumerate(kinds):
                left = LEFT + widths[:column].sum() + GAP * column
                axes = add_axes(made, left, above + row * (HEIGHT + between), widths[column], HEIGHT)
                part = pd.concat([clean, table[table["perturbation"] == kind]])
                for name in names.index:
                    own = part[part["model"] == name]
                    x = np.arange(len(own))
                    colour = KIND_COLOURS.get(name) or method_colour(name)
                    axes.fill_between(
                        x, own[f"{protocol}_low"], own[f"{protocol}_high"], color=colour, alpha=0.08, lw=0
                    )
                    axes.plot(
                        x, own[protocol], color=colour, ls=STYLES.get(name, "-"), lw=1.2, marker="o", ms=2
                    )
                axes.set_ylim(low - 0.01, min(1.0, high + 0.01))
                axes.set_xticks(np.arange(counts[column] + 1), ["–", *dict.fromkeys(_levels(table, kind))])
                axes.tick_params(axis="x", labelsize=6)
                axes.set_xlim(-0.25, counts[column] + 0.25)
                axes.axhline(0.5, color="#cccccc", lw=0.6, zorder=0)
                axes.grid(axis="y")
                if row == 0:
                    axes.set_title(TITLES[kind], fontsize=7.5)
                if column == 0:
                    axes.set_ylabel(PROTOCOLS[protocol])
                else:
                    axes.tick_params(axis="y", labelleft=False)
        made.legend(
            handles=[
                Line2D(
                    [],
                    [],
                    color=KIND_COLOURS.get(name) or method_colour(name),
                    ls=STYLES.get(name, "-"),
                    label=names[name],
                )
                for name in names.index
            ],
            loc="upper left",
            bbox_to_anchor=(MARGIN / WIDTH, 1 - 0.03 / total),
            ncols=6,
            borderaxespad=0,
            columnspacing=1.2,
        )
        made.text(MARGIN / WIDTH, 0.08 / total, legend, size=6.5, va="bottom", linespacing=1.3)
    return made


def _levels(table: pd.DataFrame, kind: str) -> list[str]:
    """Return the levels of a perturbation as text, in their order."""
    levels = table.loc[table["perturbation"] == kind, "level"]
    return [
        f"{float(one):g}".replace("0.", ".", 1) if float(one) < 1 else f"{float(one):g}" for one in levels
    ]
