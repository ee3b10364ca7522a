"""Uneven and hostile specialists: a panel a measure, a row a replacement, a mark a merge."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from r2m.evaluate.protocols import EvaluationContext
from r2m.report.figures.style import FAINT, INK, add_axes, method_colour, new_figure, styled, text_width, wrap

PANELS = {
    "in_distribution": "In distribution",
    "victim_auc": "Victim's own fakes",
    "unseen_generator": "Unseen generators",
    "triggered_real": "Called real\nwith the trigger",
}
ALONE = "specialist"
MARGIN, GAP, LABEL_SIZE, WIDTH = 0.1, 0.14, 7.5, 7.0


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw table.csv of the experiment: shared rows, the diagnostic's z-scores at the right."""
    panels = {key: title for key, title in PANELS.items() if key in table}
    kinds = list(dict.fromkeys(table["kind"]))
    merges = [name for name in dict.fromkeys(table["variant"]) if name != ALONE]
    colours = {name: method_colour(name) for name in merges} | {ALONE: FAINT}
    row = max(0.3, 0.1 * (len(merges) + 2))
    left = MARGIN + max(text_width(kind, LABEL_SIZE) for kind in kinds) + 0.08
    verdict = 1.0
    panel = (WIDTH - left - verdict - MARGIN - GAP * len(panels)) / len(panels)
    legend = wrap(
        "Grey diamond: the specialist alone. Right: modified z-scores of its norm and cosine among all"
        " specialists; bold: it stands out, and r2m merge warns.",
        6.5,
        WIDTH - 2 * MARGIN,
    )
    columns = max(1, min(6, len(merges)))
    above = 0.36 + 0.17 * -(-len(merges) // columns)
    body = row * len(kinds)
    with styled():
        made = new_figure(WIDTH, above + body + 0.5 + 0.13 * (legend.count("\n") + 1))
        for place, (key, title) in enumerate(panels.items()):
            axes = add_axes(made, left + place * (panel + GAP), above, panel, body)
            _panel(axes, table, key, kinds, [*merges, ALONE], colours)
            axes.set_title(title, fontsize=LABEL_SIZE)
            if place == 0:
                for y, kind in enumerate(kinds):
                    axes.text(
                        -0.08 / panel,
                        y,
                        kind,
                        transform=axes.get_yaxis_transform(),
                        ha="right",
                        va="center",
                        size=LABEL_SIZE,
                    )
        _verdicts(axes, table, kinds, panel)
        made.legend(
            handles=[
                Line2D([], [], ls="", marker="o", color=colours[name], label=context.variant_label(name))
                for name in merges
            ],
            loc="upper left",
            bbox_to_anchor=(MARGIN / WIDTH, 1 - 0.03 / made.get_figheight()),
            ncols=columns,
            handletextpad=0.2,
            columnspacing=1.0,
            borderaxespad=0,
        )
        made.text(MARGIN / WIDTH, 0.06 / made.get_figheight(), legend, size=6.5, va="bottom", linespacing=1.3)
    return made


def _panel(
    axes: Axes, table: pd.DataFrame, key: str, kinds: list[str], names: list[str], colours: dict[str, str]
) -> None:
    """Draw one measure: the marks of a row below each other, in the order of the legend."""
    step = 0.72 / max(1, len(names) - 1)
    for place, name in enumerate(names):
        rows = table[table["variant"] == name].set_index("kind")
        ys = [y for y, kind in enumerate(kinds) if kind in rows.index]
        values = rows[key].astype(float).loc[[kinds[y] for y in ys]].tolist()
        marker = "D" if name == ALONE else "o"
        axes.plot(
            values,
            [y - 0.36 + place * step for y in ys],
            marker,
            color=colours[name],
            markersize=3.2 if name == ALONE else 4,
            ls="",
        )
    for y in range(1, len(kinds)):
        axes.axhline(y - 0.5, color="#e2e2e2", lw=0.6, zorder=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set(ylim=(len(kinds) - 0.5, -0.5), yticks=[])
    axes.set_xlabel("share" if key == "triggered_real" else "AUC")
    axes.locator_params(axis="x", nbins=4)
    axes.margins(x=0.08)
    axes.spines["left"].set_visible(False)


def _verdicts(axes: Axes, table: pd.DataFrame, kinds: list[str], panel: float) -> None:
    """Write the z-scores of every replacement to the right of the last panel."""
    rows = table[table["variant"] == ALONE].set_index("kind")
    # Columns that are empty for the merges come as text from the CSV.
    numbers = rows[["norm_z", "cosine_z", "norm_stands_out", "cosine_stands_out"]].apply(
        pd.to_numeric, errors="coerce"
    )
    transform = axes.get_yaxis_transform()
    for offset, key, title in ((0.42, "norm_z", "Norm z"), (0.92, "cosine_z", "Cosine z")):
        place = 1 + offset / panel
        axes.text(place, -0.62, title, transform=transform, ha="right", va="bottom", size=6.5)
        for y, kind in enumerate(kinds):
            value, away = numbers.loc[kind, [key, f"{key[:-2]}_stands_out"]]
            axes.text(
                place,
                y,
                "–" if pd.isna(value) else f"{round(value, 1) + 0.0:.1f}".replace("-", "−"),
                transform=transform,
                ha="right",
                va="center",
                size=LABEL_SIZE,
                color=INK,
                weight="bold" if away == 1 else "normal",
            )
