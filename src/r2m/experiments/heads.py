"""Heads of a merged backbone: made of the specialists' heads, or fitted to its own features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments.experiment import (
    Experiment,
    ExperimentOptions,
    Variants,
    merge_stage,
    protocol_series,
    protocol_titles,
)
from r2m.plan.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

    from r2m.evaluate.bench import Bench
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import Tensors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table

NAMES = {"average": "mean of the specialists'", "base": "initial", "retrain": "re-trained", "lda": "LDA"}


class HeadsOptions(ExperimentOptions):
    """Heads of merged backbones: the specialists', their mean, the initial one, and two fitted anew."""

    variants: Variants = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")


def stages(plan: Plan, options: HeadsOptions) -> Sequence[Stage]:
    """Return the stage of the scores."""
    return [merge_stage(plan, "heads", options.variants, {"generators": plan.trained}, memory=3000)]


def run(bench: Bench, variants: Sequence[Chosen], generators: Sequence[str]) -> pd.DataFrame:
    """Return the scores of every merge variant with every head, columns variant, head, `KEPT` and logit.

    The backbone's features are computed once; a head is a product with them. Fitted heads see the training
    split of `generators` and nothing else.
    """
    import pandas as pd

    from r2m.train.rows import rows_of

    fakes, reals = rows_of(bench.inputs, list(generators), "train")
    train = pd.concat([fakes, reals], ignore_index=True)
    scored = bench.inputs.select(split=["val", "test"])
    parts = []
    for variant in variants:
        tensors = bench.merged(variant.method, variant.options)
        x = bench.features(tensors, train)
        features = bench.features(tensors, scored)
        for name, head in heads(bench, x, train["label"].to_numpy()):
            logits = logits_of(features, head)
            parts.append(scored[KEPT].assign(variant=variant.variant, head=name, logit=logits))
    return pd.concat(parts, ignore_index=True)[["variant", "head", *KEPT, "logit"]]


def heads(bench: Bench, x: np.ndarray, label: np.ndarray) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield names and heads: made of the specialists', and fitted to features `x` (n, D)."""
    from r2m.train.probe import fit_head, fit_lda_head

    yield "average", bench.head("average")
    yield "base", bench.head("base")
    for name in bench.heads:
        yield f"specialist:{name}", bench.head(f"specialist:{name}")
    yield "retrain", fit_head(x, label)
    yield "lda", fit_lda_head(x, label)


def logits_of(features: np.ndarray, head: Tensors) -> np.ndarray:
    """Return the logits (n,) of a head on features (n, D), in float64."""
    weight, bias = head["head.weight"].double().numpy()[0], head["head.bias"].double().item()
    return features.astype(np.float64) @ weight + bias


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: one row per variant and head."""
    from r2m.evaluate.experiment_means import protocol_means, read_settings
    from r2m.report.table import Table

    by = ["variant", "head"]
    means = protocol_means(read_settings(source, by), by, context)
    means.insert(0, "merge", means["variant"].map(context.variant_label))
    titles = protocol_titles(means)
    return Table(
        means,
        {"merge": "Merge", "head": "Head", **titles},
        caption=(
            "Heads of merged backbones. Retrain (logistic regression) and lda (linear discriminant analysis)"
            " are fitted to the merged backbone's features of the training split, the others need no data."
            " Mean AUC; best of a merge bold, second underlined."
        ),
        label="heads",
        best=list(titles),
        section="variant",
    )


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw one row per head, below the merge that it is put on."""
    from r2m.report.figures.dots import dot_rows

    return dot_rows(
        [context.variant_label(name) for name in table["variant"]],
        [_label(name, context) for name in table["head"]],
        protocol_series(table),
        "Mean AUC with different heads on one merged backbone. Numbers: val. LDA and re-trained heads are"
        " fitted to training images.",
    )


def _label(head: str, context: EvaluationContext) -> str:
    rule, _, name = head.partition(":")
    return f"of {context.generator_label(name)}" if rule == "specialist" else NAMES.get(head, head)


EXPERIMENT = Experiment(
    title="Heads of merged backbones",
    caption=(
        "Heads on one merged backbone: the mean of the specialists' heads, the initial one, each"
        " specialist's, and two that are fitted to the merged backbone's features of the *training* split"
        " (logistic regression, linear discriminant analysis). Rows of one merge differ in the head alone."
        " Look at the distance between the mean head and the fitted ones: it is what merging loses in the"
        " head rather than in the backbone. Mean AUC on val (trained generators) and over the test sets of"
        " each protocol."
    ),
    options=HeadsOptions,
    stages=stages,
    table=table,
    figure=figure,
    order=4,
)
