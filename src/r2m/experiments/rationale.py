"""Why R²M should work: which way its parts shift features, and whether their shifts add up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from r2m.errors import R2MError
from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments.experiment import (
    Experiment,
    ExperimentOptions,
    Variants,
    image_handles,
    merge_stage,
    name_row,
)
from r2m.plan.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from r2m.evaluate.bench import Bench
    from r2m.evaluate.shifts import Features
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import Tensors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table

TITLES = {
    "size": "Size",
    "share": "Share along",
    "share_low": "from",
    "share_high": "to",
    "along": "Mean along",
    "separation": "Separation",
    "separation_low": "from",
    "separation_high": "to",
    "error": "Error of the sum",
    "cosine": "Cosine with the sum",
    "auc": "AUC",
}
MARGIN, PANEL, GAP, ROW, HEADING = 0.12, 1.6, 0.2, 0.34, 0.26
LABEL_SIZE, SIZE = 7.5, 6.5
# Measure → its title, and whether it has an interval.
PANELS = {
    "share": ("Share of ‖shift‖²\nalong the direction", True),
    "along": ("Mean shift\nalong it", True),
    "error": ("Relative error of\nthe sum of shifts", False),
}


class RationaleOptions(ExperimentOptions):
    """Which way the Real component and the residuals of R²M shift features, and whether shifts add up."""

    variants: Variants = Field(default=["r2m"], description="enabled merge variants of the method r2m")


def stages(plan: Plan, options: RationaleOptions) -> Sequence[Stage]:
    """Return the stage of the shifts."""
    values = {"domain": plan.params.train_domain, "generators": plan.trained}
    return [merge_stage(plan, "rationale", options.variants, values, memory=4000)]


def run(bench: Bench, variants: Sequence[Chosen], domain: str, generators: Sequence[str]) -> pd.DataFrame:
    """Return how every part of R²M shifts the pooled features of the test images of `domain`.

    The separation direction d is the merge's own, from val images of `generators` (`separation`). The core
    shifts the base's features, the residual those of base and core; so does a specialist's share of it. One
    row per image and part: variant, part, `KEPT`, width (D), along (⟨shift, d⟩), square (‖shift‖²), and
    where the shift is compared with the sum of its parts' shifts, that sum's squared norm (sum_square) and
    ⟨shift, sum⟩ (dot). The part `base` is no shift: along is ⟨feature, d⟩.

    Raises:
        R2MError: no test images of the domain, or no val images to find the direction with.
    """
    import pandas as pd

    from r2m.evaluate.shifts import BASE, BOTH, CORE, MEASURED, OF, RESIDUAL, measure, separation
    from r2m.merge.passes import parts as parts_of
    from r2m.train.rows import rows_of

    rows = bench.inputs.select(split="test", domain=domain)
    if rows.empty:
        raise R2MError(f"domain {domain}: no images in the split 'test'")
    val = pd.concat(rows_of(bench.inputs, list(generators), "val"), ignore_index=True)
    frames = []
    for variant in variants:
        own = parts_of(bench.task_vectors, variant.r2m())
        whole = added(own.core, *map(own.residual, bench.task_vectors))
        direction = separation(bench.features(bench.updated(whole), val), val["generator"].tolist())

        def features(update: Tensors) -> Features:
            return bench.features(bench.updated(update), rows).astype(np.float64)

        base, core, merged = features({}), features(own.core), features(whole)
        alone = features({key: tensor - own.core[key] for key, tensor in whole.items()})
        single = {name: features(added(own.core, own.residual(name))) - core for name in bench.task_vectors}
        total = np.sum(list(single.values()), axis=0)
        measured = {
            BASE: measure(base, direction).assign(square=np.nan),
            CORE: measure(core - base, direction),
            RESIDUAL: measure(merged - core, direction, total),
            BOTH: measure(merged - base, direction, (core - base) + (alone - base)),
            **{f"{OF}{name}": measure(shift, direction) for name, shift in single.items()},
        }
        frames += [
            rows[KEPT]
            .assign(variant=variant.variant, part=part, width=len(direction))
            .join(values.set_index(rows.index))
            for part, values in measured.items()
        ]
    return pd.concat(frames, ignore_index=True)[["variant", "part", *KEPT, "width", *MEASURED]]


def added(first: Tensors, *others: Tensors) -> Tensors:
    """Return the sum of updates of the same tensors."""
    total = {key: tensor.clone() for key, tensor in first.items()}
    for update in others:
        for key, tensor in update.items():
            total[key].add_(tensor)
    return total


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the shifts in `source`: one row per variant, part and kind of image.

    Raises:
        R2MError: not the output of this experiment, or no shifts.
    """
    from r2m.evaluate.bootstrap import LEVEL
    from r2m.evaluate.experiment_means import read_columns
    from r2m.evaluate.image_kinds import IMAGE_KINDS
    from r2m.evaluate.shifts import MEASURED, summary
    from r2m.report.table import Table

    keys = ["variant", "part", "image_id", "generator", "identity", "width"]
    shifts = read_columns(source, [*keys, *MEASURED], "shifts")
    if shifts.empty:
        raise R2MError(f"{source}: expected one row per image and part, got none")
    frame = summary(shifts, context)
    frame.insert(0, "merge", frame["variant"].map(context.variant_label))
    frame.insert(3, "shift", [part_label(part, context) for part in frame["part"]])
    frame.insert(5, "kind", frame["images"].map(IMAGE_KINDS))
    chance = 1 / float(shifts["width"].iloc[0])
    return Table(
        frame,
        {"merge": "Merge", "shift": "Shift by", "kind": "Images", **TITLES},
        caption=(
            "Shifts of the pooled features of test images by the parts of R²M. The direction is that from the"
            " mean real to the mean fake feature of the merge, on val images. Share along: of the squared"
            f" norm; the rest lies off it ({chance:.4f} would lie along a random direction)."
            " Separation: how much further fakes are shifted along it than reals. Error and cosine: the shift"
            " by a sum of parts beside the sum of their shifts. AUC: of the features along the direction,"
            f" that part added. {100 * LEVEL:g} % intervals by the jackknife over people."
        ),
        label="rationale",
        section="variant",
        digits={"size": 2, **{key: 2 for key in TITLES if key.startswith(("along", "separation"))}},
    )


def part_label(part: str, context: EvaluationContext) -> str:
    """Name of a part as a reader sees it."""
    from r2m.evaluate.shifts import BASE, OF

    if part.startswith(OF):
        return f"residual of {context.generator_label(part.removeprefix(OF))}"
    return {BASE: "none (base)"}.get(part, part)


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw a row per part of the merge, and a mark per kind of image."""
    import pandas as pd
    from matplotlib.ticker import MaxNLocator

    from r2m.evaluate.bootstrap import LEVEL
    from r2m.evaluate.image_kinds import IMAGE_KINDS
    from r2m.evaluate.shifts import BASE
    from r2m.report.figures.framing import legend_above, text_below
    from r2m.report.figures.style import add_axes, new_figure, styled, text_width, wrap

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
            name_row(first, y + 0.6 * HEADING, merge, 0.1 / PANEL, size=LABEL_SIZE, style="italic")
            y += HEADING
            for name in parts:
                name_row(first, y + ROW / 2, name, 0.1 / PANEL, size=LABEL_SIZE)
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
        handles = image_handles(kinds, ls="", ms=4)
        legend_above(drawn, handles, MARGIN, len(kinds), 0.04, handletextpad=0.3, columnspacing=1.2)
        text_below(drawn, caption, MARGIN)
    return drawn


def _mark(axes: Axes, row: pd.Series, measure: str, place: float) -> None:
    """Draw one kind of image of one part."""
    from r2m.report.figures.style import IMAGE_COLOURS, IMAGE_MARKERS

    if np.isnan(row[measure]):
        return
    colour = IMAGE_COLOURS[row["images"]]
    if PANELS[measure][1]:
        axes.plot([row[f"{measure}_low"], row[f"{measure}_high"]], [place, place], color=colour, lw=1.2)
    axes.plot(row[measure], place, IMAGE_MARKERS[row["images"]], color=colour, ms=3.8, mec="white", mew=0.4)


EXPERIMENT = Experiment(
    title="Rationale of R²M",
    caption=(
        "How the Real component (core) and the residuals of R²M shift the pooled features of test images"
        " in the training domain. The direction leads from the merge's mean real to its mean fake feature"
        " and is computed on val images alone. The core shifts the base's features, the residual those of"
        " base and core, and so does each specialist's share of the residual. Look at *share along* (of"
        " the squared norm of the shifts; the rest lies off the direction) and at *separation*, how much"
        " further fakes are shifted along it than reals: the rationale holds if that is the residual's"
        " work and not the core's. *Error* compares the shift by a sum of parts with the sum of their"
        " shifts (core and residual on the base; the specialists' shares on base and core): 0 where the"
        " network is linear. *AUC* is that of the features along the direction once the part is added."
    ),
    options=RationaleOptions,
    takes={"of_r2m": True},
    stages=stages,
    table=table,
    figure=figure,
    order=3,
)
