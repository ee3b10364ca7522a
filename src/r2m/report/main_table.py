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
from r2m.report.table import Heading, Table

OWN = "†"
OVER_SEEDS = " Mean ± standard deviation over seeds of training."
MARKS = "**Bold**: best of the merged models, <ins>underlined</ins>: second"


def main_table(
    seeds: Sequence[pd.DataFrame], models: pd.DataFrame, context: EvaluationContext, metric: str = "auc"
) -> Table:
    """Average a metric over test sets: per family in distribution, and per protocol.

    Cross-dataset is parted by whether the generator was trained on where both kinds occur. `seeds` holds the
    metrics (AUC_COLUMNS) of every training.

    Raises:
        R2MError: a metric that is not averaged over test sets.
    """
    if not METRICS[metric].averaged:
        raise R2MError(f"metric {metric}: not one whose mean over test sets means anything")
    names = list(models["model"])
    pairs = seeds[0][["domain", "generator"]].drop_duplicates().itertuples(index=False)
    sets = order_test_sets([describe(domain, generator, context) for domain, generator in pairs], context)
    families = [
        context.generators[name].family if kind == "specialist" and name in context.generators else ""
        for name, kind in zip(names, models["kind"], strict=True)
    ]
    frame = models[["label", "kind"]].reset_index(drop=True)
    titles, notes = {}, {}
    for (protocol, part), places in mean_columns(sets).items():
        column = f"{protocol}/{part}"
        averaged = {sets[place].name for place in places}
        values = np.array(
            [
                auc[auc["test_set"].isin(averaged)].groupby("model")[metric].mean().reindex(names)
                for auc in seeds
            ]
        )
        frame[column] = values.mean(axis=0)
        if len(seeds) > 1:
            frame[column + SPREAD] = values.std(axis=0, ddof=1)
        titles[column] = _heading(protocol, part)
        notes[column] = [OWN if part == family else "" for family in families]
    greater = METRICS[metric].greater_is_better
    return Table(
        frame,
        {"label": "Model", **titles},
        caption=(
            f"Mean {METRICS[metric].title} over test sets; a family's column is the mean over its trained"
            f" generators in the training domain. {MARKS}; {OWN}: the specialist's own family."
            f"{OVER_SEEDS if len(seeds) > 1 else ''}"
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
    """Whole protocols of `means` (MEAN_COLUMNS), and how often the reference is significantly apart.

    `tested` are the comparisons (COMPARISON_COLUMNS) with the reference of all `trainings`, without rows
    where there is none.
    """
    names = list(models["model"])
    frame = models[["label", "kind"]].reset_index(drop=True)
    titles: dict[str, str | Heading] = {}
    notes = {}
    whole = means[~means["part"].isin(FAMILIES)]
    for (protocol, part), rows in whole.groupby(["protocol", "part"], sort=False):
        column = f"{protocol}/{part}"
        by_model = rows.set_index("model").loc[names]
        frame[column] = by_model["auc"].to_numpy(float)
        frame[column + SPREAD] = by_model["auc_sd"].to_numpy(float)
        titles[column] = _heading(str(protocol), str(part))
        limits = by_model[["low", "high"]].astype(float).itertuples(index=False)
        notes[column] = [f" [{low:.3f}, {high:.3f}]" for low, high in limits]
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
        caption=f"{caption}{OVER_SEEDS if several else ''} {MARKS}.",
        label="intervals",
        best=best,
        section="kind",
        sections=KINDS,
        compared="merge",
        notes=notes,
        right=["verdict"],
    )


def _heading(protocol: str, part: str) -> Heading:
    """Heading of the mean over a part of a protocol, or over the whole (`mean`)."""
    title = PROTOCOLS[protocol]
    alone = title if part == "mean" else part if part in FAMILIES else f"{title}, {part}"
    return Heading(title, part, alone)
