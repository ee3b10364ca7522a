"""How alike specialists and merges see the same images, Real against Fake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from r2m.errors import R2MError
from r2m.experiments.experiment import Experiment, ExperimentOptions, Variants, image_handles, merge_stage
from r2m.plan.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from r2m.evaluate.bench import Bench
    from r2m.evaluate.protocols import EvaluationContext
    from r2m.evaluate.similarity import Model
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import Tensors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table

MARGIN, PANEL, HEIGHT, GAP, TICKS, HEADING = 0.12, 1.42, 1.0, 0.16, 0.36, 0.42
SIZE, LEGEND = 6.5, 3.8


class SimilarityOptions(ExperimentOptions):
    """Features of specialists beside those of the base, of each other and of merges, Real against Fake."""

    variants: Variants = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    images: Annotated[int, Field(ge=4)] = Field(
        default=500, description="most images of a set that are compared, evenly spaced"
    )


def stages(plan: Plan, options: SimilarityOptions) -> Sequence[Stage]:
    """Return the stage of the similarities."""
    values = {"domain": plan.params.train_domain, "images": options.images}
    return [merge_stage(plan, "similarity", options.variants, values, memory=4000)]


def run(bench: Bench, variants: Sequence[Chosen], domain: str, images: int) -> pd.DataFrame:
    """Return how alike every specialist is to the base, the other specialists and the merges.

    They see the same test images of `domain`, set by set, of each at most `images`, evenly spaced. Columns:
    specialist, `kind` and name of the `other` model, layer, generator (`real` for reals), left_out (the
    person whose images are left out, `EVERYONE` for none), number of images, and MEASURES.

    Raises:
        R2MError: no test images of the domain.
    """
    import pandas as pd

    from r2m.evaluate.similarity import KEYS, MEASURES, compared, spaced

    rows = bench.inputs.select(split="test", domain=domain)
    if rows.empty:
        raise R2MError(f"domain {domain}: no images in the split 'test'")
    rows = pd.concat([spaced(part, images) for _, part in rows.groupby("set", sort=False)])
    layers = {model: bench.layer_features(tensors, rows) for model, tensors in _models(bench, variants)}
    generator = rows["generator"].to_numpy(object)
    parts = []
    for name in dict.fromkeys(generator):
        places = np.flatnonzero(generator == name)
        own = {model: {layer: x[places] for layer, x in seen.items()} for model, seen in layers.items()}
        values = compared(own, rows["identity"].iloc[places].tolist())
        parts.append(values.assign(generator=name, images=len(places)))
    columns = [*KEYS, "left_out", "images", *MEASURES]
    return pd.concat(parts, ignore_index=True)[columns]


def _models(bench: Bench, variants: Sequence[Chosen]) -> Iterator[tuple[Model, Tensors]]:
    """Yield (kind, name) and the tensors of the base, of every specialist and of every merge."""
    from r2m.evaluate.similarity import BASE, MERGE, SPECIALIST

    yield (BASE, BASE), bench.updated({})
    for name, task_vector in bench.task_vectors.items():
        yield (SPECIALIST, name), bench.updated(task_vector)
    for variant in variants:
        yield (MERGE, variant.variant), bench.merged(variant.method, variant.options)


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the similarities in `source`: one row per compared model and measure.

    Readers are shown the pooled features and the mean over specialists; the CSV has all rows of `summary`.

    Raises:
        R2MError: not the output of this experiment.
    """
    from r2m.evaluate.bootstrap import LEVEL
    from r2m.evaluate.experiment_means import read_columns
    from r2m.evaluate.image_kinds import FOREIGN, IMAGE_KINDS, OWN, UNSEEN
    from r2m.evaluate.similarity import BASE, KEYS, MEAN, MEASURES, OTHERS, summary
    from r2m.manifest import REAL
    from r2m.report.table import Table
    from r2m.session import POOLED

    found = read_columns(source, [*KEYS, "left_out", *MEASURES], "similarities")
    found = summary(found, context)
    fakes = [kind for kind in (OWN, FOREIGN, UNSEEN) if kind in found]
    labels = {BASE: "Base", OTHERS: "Other specialists"}
    frame = found.assign(
        compared=[labels.get(name) or context.variant_label(name) for name in found["other"]],
        quantity=found["measure"].map(MEASURES),
    )
    titles = {"compared": "Specialists beside", "quantity": "Similarity", REAL: IMAGE_KINDS[REAL]}
    for kind in fakes:
        titles |= {kind: IMAGE_KINDS[kind]}
    for kind in fakes:
        difference = f"real_{kind}"
        titles |= {difference: f"Real − {kind}", f"{difference}_low": "from", f"{difference}_high": "to"}
    return Table(
        frame,
        titles,
        caption=(
            "Similarity of specialists' pooled features to those of other models on the same test images,"
            " mean over specialists; fakes by whether the specialist was trained on them, other specialists"
            f" were, or none. Differences with {100 * LEVEL:g} % intervals (jackknife over people)."
            f" {_verdict(frame)}"
        ),
        label="similarity",
        section="compared",
        shown=((frame["layer"] == POOLED) & (frame["specialist"] == MEAN)).tolist(),
    )


def _verdict(frame: pd.DataFrame) -> str:
    """Say of how many specialists Real is more similar than their own fakes, for every merge."""
    from r2m.evaluate.image_kinds import OWN
    from r2m.evaluate.similarity import MEAN, MERGE

    if f"real_{OWN}" not in frame:
        return "No specialist's own fakes are among the images."
    single = frame[(frame["kind"] == MERGE) & (frame["specialist"] != MEAN)].dropna(subset=f"real_{OWN}")
    told: dict[str, list[str]] = {}
    for (label, quantity), part in single.groupby(["compared", "quantity"], sort=False):
        above, below = (part[f"real_{OWN}_low"] > 0).sum(), (part[f"real_{OWN}_high"] < 0).sum()
        told.setdefault(str(label), []).append(f"{quantity} {above} / {below}")
    counted = ". ".join(f"{label}: {'; '.join(counts)}" for label, counts in told.items())
    return (
        f"Of {single['specialist'].nunique()} specialists, Real is significantly more / less similar than"
        f" their own fakes for: {counted}."
    )


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw a column per compared model, a row per measure and a line per kind of image."""
    import pandas as pd

    from r2m.evaluate.bootstrap import LEVEL
    from r2m.evaluate.image_kinds import IMAGE_KINDS
    from r2m.evaluate.similarity import MEAN
    from r2m.report.figures.framing import legend_above, text_below
    from r2m.report.figures.style import FAINT, add_axes, new_figure, styled, wrap

    means = table[table["specialist"] == MEAN]
    kinds = [kind for kind in IMAGE_KINDS if kind in means]
    numbers = [f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high")]
    means = means.assign(**means[numbers].apply(pd.to_numeric))
    columns, rows = list(means["compared"].unique()), list(means["quantity"].unique())
    left = MARGIN + TICKS + 0.2
    width = max(left + len(columns) * (PANEL + GAP) - GAP + MARGIN, LEGEND)
    caption = wrap(
        "Similarity of specialists' features to those of other models on the same test images, mean over"
        f" specialists. Bands: {100 * LEVEL:g} % intervals over people. Panels of a row share their axis.",
        SIZE,
        width - 2 * MARGIN,
    )
    top = HEADING + 0.14 * max(title.count("\n") for title in map(_wrapped, columns))
    ticks = 0.5
    below = 0.12 + 0.13 * (caption.count("\n") + 1)
    height = top + len(rows) * (HEIGHT + GAP) - GAP + ticks + below
    with styled():
        drawn = new_figure(width, height)
        for row, quantity in enumerate(rows):
            shown = means[means["quantity"] == quantity]
            limits = _limits(shown, kinds)
            for column, compared in enumerate(columns):
                part = shown[shown["compared"] == compared]
                if part.empty:  # the base has no shifts to compare
                    drawn.text(
                        (left + column * (PANEL + GAP) + PANEL / 2) / width,
                        1 - (top + row * (HEIGHT + GAP) + HEIGHT / 2) / height,
                        "none to compare",
                        ha="center",
                        va="center",
                        size=SIZE,
                        color=FAINT,
                    )
                    continue
                axes = add_axes(
                    drawn, left + column * (PANEL + GAP), top + row * (HEIGHT + GAP), PANEL, HEIGHT
                )
                _panel(axes, part, kinds)
                axes.set_ylim(limits)
                first = column == min(
                    index for index, name in enumerate(columns) if (shown["compared"] == name).any()
                )
                axes.tick_params(labelsize=6.5, labelleft=first, labelbottom=row == len(rows) - 1)
                if first:
                    axes.set_ylabel(quantity)
                if row == len(rows) - 1:
                    axes.set_xlabel("output of block" if len(part) > 1 else "")
        for column, compared in enumerate(columns):
            drawn.text(
                (left + column * (PANEL + GAP) + PANEL / 2) / width,
                1 - (top - 0.06) / height,
                _wrapped(compared),
                ha="center",
                va="bottom",
                size=8,
            )
        handles = image_handles(kinds, ms=3.5)
        legend_above(drawn, handles, MARGIN, 4, columnspacing=1.2)
        text_below(drawn, caption, MARGIN)
    return drawn


def _panel(axes: Axes, part: pd.DataFrame, kinds: list[str]) -> None:
    """Draw the lines of one compared model and measure, `part` having one row per layer."""
    from matplotlib.ticker import MaxNLocator

    from r2m.report.figures.style import IMAGE_COLOURS, IMAGE_MARKERS

    places = range(len(part))
    for kind in kinds:
        colour = IMAGE_COLOURS[kind]
        axes.fill_between(places, part[f"{kind}_low"], part[f"{kind}_high"], color=colour, alpha=0.12, lw=0)
        axes.plot(places, part[kind], color=colour, marker=IMAGE_MARKERS[kind], ms=3, lw=1)
    names = [name.removeprefix("blocks.") for name in part["layer"]]
    axes.set_xticks(list(places), names)
    axes.set_xlim(-0.3, len(part) - 0.7 + 0.3)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _limits(shown: pd.DataFrame, kinds: list[str]) -> tuple[float, float]:
    values = shown[[f"{kind}{end}" for kind in kinds for end in ("", "_low", "_high")]].to_numpy(float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * max(high - low, 0.02)
    return low - room, high + room


def _wrapped(title: str) -> str:
    from r2m.report.figures.style import text_width, wrap

    return wrap(title, 8, max(PANEL, max(text_width(word, 8) for word in title.split())))


EXPERIMENT = Experiment(
    title="Similarity of features",
    caption=(
        "How alike specialists' features are to those of the merges, of the other specialists and of the"
        " base, on the same test images of the training domain, Real against Fake. Layers are the"
        " trainable blocks, seen through the token that the head reads (the class token, or the mean of"
        " the tokens where the head averages), and `pooled`, the features that the head gets after the"
        " last normalization. *Cosine* is the mean cosine of an image's two features; a mean common to all"
        " images raises it, so *cosine of shifts* takes both features less those of the base. *CKA* is"
        " linear, of centred features (Kornblith et al. 2019), set by set; it is high by chance where"
        " images are fewer than features, which the *debiased* form is not. Fakes are a specialist's own,"
        " those of other specialists (foreign), or of generators that no specialist saw. Look at the gap"
        " between Real and a specialist's own fakes beside the average: the claim is that Real stays"
        " similar and Fake does not. The average contains each specialist; the other specialists do not."
    ),
    options=SimilarityOptions,
    stages=stages,
    table=table,
    figure=figure,
    order=2,
)
