"""The tables of mean AUCs, one row per model: the main one, and the one with confidence intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.delong import ALPHA
from r2m.evaluate.metrics import METRICS
from r2m.evaluate.protocols import (
    FAMILIES,
    KINDS,
    PROTOCOLS,
    SPREAD,
    EvaluationContext,
    describe,
    mean_columns,
    order_test_sets,
)
from r2m.report.numbers import limits
from r2m.report.table import Heading, Table

OWN = "†"
OVER_SEEDS = " Mean ± standard deviation over seeds of training."
VIDEO = "video"
OF_VIDEOS = "Video: of videos instead of frames, where all test sets of a protocol are of videos. "
MARKS = "**Bold**: best of the merged models, <ins>underlined</ins>: second"


def main_table(
    seeds: Sequence[pd.DataFrame],
    models: pd.DataFrame,
    context: EvaluationContext,
    metric: str = "auc",
    video_seeds: Sequence[pd.DataFrame] = (),
) -> Table:
    """Average a metric over test sets: over the parts of every protocol, and over the whole of it.

    `seeds` holds the metrics (AUC_COLUMNS) of every training. `video_seeds` holds those of videos; their
    means over protocols stand beside.

    Raises:
        R2MError: a metric that is not averaged over test sets.
    """
    if not METRICS[metric].averaged:
        raise R2MError(f"metric {metric}: not one whose mean over test sets means anything")
    names = list(models["model"])
    pairs = seeds[0][["domain", "generator"]].drop_duplicates().itertuples(index=False)
    sets = order_test_sets([describe(domain, generator, context) for domain, generator in pairs], context)
    families = own_families(models, context)
    frame = models[["label", "kind"]].reset_index(drop=True)
    titles, notes = {}, {}

    def add(column: str, tables: Sequence[pd.DataFrame], averaged: set[str]) -> None:
        """Add the mean over the test sets `averaged` and, with several trainings, its standard deviation."""
        values = np.full((len(tables), len(names)), np.nan)
        for place, table in enumerate(tables):
            within = table[table["test_set"].isin(averaged)]
            if set(within["test_set"]) == averaged:
                values[place] = within.groupby("model")[metric].mean().reindex(names)
        frame[column] = values.mean(axis=0)
        if len(tables) > 1:
            frame[column + SPREAD] = values.std(axis=0, ddof=1)

    for (protocol, part), indices in mean_columns(sets, context).items():
        column = f"{protocol}/{part}"
        averaged = {sets[index].name for index in indices}
        add(column, seeds, averaged)
        titles[column] = _heading(protocol, part)
        notes[column] = [OWN if part == family else "" for family in families]
        if part == "mean" and video_seeds:
            add(f"{column}/{VIDEO}", video_seeds, averaged)
            titles[f"{column}/{VIDEO}"] = _heading(protocol, VIDEO)
    greater = METRICS[metric].greater_is_better
    return Table(
        frame,
        {"label": "Model", **titles},
        caption=(
            f"Mean {METRICS[metric].title} over test sets; a family's column is the mean over its trained"
            f" generators in the training domain. {OF_VIDEOS if video_seeds else ''}{MARKS}; {OWN}: the"
            f" specialist's own family.{OVER_SEEDS if len(seeds) > 1 else ''}"
        ),
        label="main",
        section="kind",
        digits=dict.fromkeys(titles, METRICS[metric].digits),
        sections=KINDS,
        compared="merge",
        notes=notes,
        best=list(titles) if greater else (),
        lowest=() if greater else list(titles),
    )


def interval_table(
    means: pd.DataFrame, tested: pd.DataFrame, models: pd.DataFrame, resamples: int, trainings: int = 1
) -> Table:
    """Return the means (MEAN_COLUMNS) over protocols, and how often the reference differs significantly.

    Means over videos, where `means` has them, stand beside those of whole protocols.
    `tested` are the comparisons (COMPARISON_COLUMNS) with the reference of all `trainings`, without rows
    where there is none.
    """
    names = list(models["model"])
    frame = models[["label", "kind"]].reset_index(drop=True)
    titles: dict[str, str | Heading] = {}
    notes = {}
    averages = means[~means["part"].isin(FAMILIES)]
    has_videos = "video_auc" in means
    for (protocol, part), rows in averages.groupby(["protocol", "part"], sort=False):
        column = f"{protocol}/{part}"
        by_model = rows.set_index("model").loc[names]
        frame[column] = by_model["auc"].to_numpy(float)
        frame[column + SPREAD] = by_model["auc_sd"].to_numpy(float)
        titles[column] = _heading(str(protocol), str(part))
        notes[column] = _limits(by_model["low"], by_model["high"])
        if part == "mean" and has_videos:
            video = f"{column}/{VIDEO}"
            frame[video] = by_model["video_auc"].to_numpy(float)
            frame[video + SPREAD] = by_model["video_auc_sd"].to_numpy(float)
            titles[video] = _heading(str(protocol), VIDEO)
            notes[video] = _limits(by_model["video_low"], by_model["video_high"])
    best = list(titles)
    caption = (
        f"Mean AUC over test sets, and its {100 * LEVEL:g} % interval from {resamples} bootstrap resamples "
        "of people."
    )
    if len(tested):
        label = models.set_index("model")["label"][tested["reference"].iloc[0]]
        titles["verdict"] = Heading(label, "better / worse", f"{label}, better / worse")
        count = tested.groupby(["model", "significance"]).size()
        frame["verdict"] = [
            f"{count.get((name, 'better'), 0)} / {count.get((name, 'worse'), 0)}" if name in count else None
            for name in names
        ]
        caption += (
            f" Last column: on how many of the {tested['test_set'].nunique()} test sets {label} is "
            f"{'' if trainings == 1 else f'and {trainings} seeds, each by itself, '}"
            f"significantly better / worse than the model (DeLong's paired test, p < {ALPHA} after Holm's "
            f"correction over all {len(tested) // trainings} tests{'' if trainings == 1 else ' of a seed'})."
        )
    several = means["auc_sd"].notna().any()
    return Table(
        frame,
        {"label": "Model", **titles},
        caption=(f"{caption}{OVER_SEEDS if several else ''} {OF_VIDEOS if has_videos else ''}{MARKS}."),
        label="intervals",
        best=best,
        section="kind",
        sections=KINDS,
        compared="merge",
        notes=notes,
        right=["verdict"],
    )


def own_families(models: pd.DataFrame, context: EvaluationContext) -> list[str]:
    """Return the family of each model that is the specialist of one generator, and nothing for the others."""
    return [
        context.generators[name].family if kind == "specialist" and name in context.generators else ""
        for name, kind in zip(models["model"], models["kind"], strict=True)
    ]


def _limits(low: pd.Series, high: pd.Series) -> list[str]:
    """Return the limits of intervals as they stand behind their estimates."""
    return [f" {limits(*pair)}" for pair in zip(low.astype(float), high.astype(float), strict=True)]


def _heading(protocol: str, part: str) -> Heading:
    """Return the heading of the mean over a part of a protocol, the whole (`mean`), or its videos."""
    title = PROTOCOLS[protocol]
    alone = title if part == "mean" else part if part in FAMILIES else f"{title}, {part}"
    return Heading(title, part, alone)
