"""Per generator against per family: what specialists are trained on, and how they are merged."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from r2m.evaluate.bench import Bench
from r2m.evaluate.scores import KEPT
from r2m.experiments.plans import BOTH, FAMILIES, GENERATORS, JOINT, FamiliesPlan
from r2m.experiments.tuned import TunedMerge, as_text, tuned_merge
from r2m.merge.tensors import Tensors
from r2m.merge.variants import MergeVariant


class Strategy(NamedTuple):
    """A merge by one strategy, and the options chosen for it as text."""

    update: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    tuned: str


def family_scores(bench: Bench, plan: FamiliesPlan, joint: Tensors | None = None) -> pd.DataFrame:
    """Return the scores of every variant by every strategy, and of `joint` (a trained model) where given.

    Columns: variant, strategy, specialists and steps (how many there are of them in total), tuned, `KEPT` and
    logit.
    """
    parts = []

    def scored(variant: str, strategy: str, tensors: Tensors, head: Tensors, tuned: str) -> None:
        used = plan.used(strategy)
        parts.append(
            bench.scores(tensors, head)[[*KEPT, "logit"]].assign(
                variant=variant,
                strategy=strategy,
                specialists=len(used),
                steps=sum(plan.steps[name] for name in used),
                tuned=tuned,
            )
        )

    for name, variant in plan.variants.items():
        for strategy in (GENERATORS, FAMILIES, BOTH):
            made = merged(bench, plan, name, variant, strategy)
            scored(name, strategy, bench.updated(made.update), made.head, made.tuned)
    if joint is not None:
        scored(JOINT, JOINT, joint, {}, "")
    columns = ["variant", "strategy", "specialists", "steps", "tuned", *KEPT, "logit"]
    return pd.concat(parts, ignore_index=True)[columns]


def merged(bench: Bench, plan: FamiliesPlan, name: str, variant: MergeVariant, strategy: str) -> Strategy:
    """Merge by one strategy, with options chosen on val.

    In two levels the specialists of each family of several generators are merged first, with the options that
    are best on the val images of that family's generators. Then the results are merged like specialists, with
    the options that are best on the val images of all generators. The grid is the variant's own each time.
    """
    if strategy != BOTH:
        used = plan.used(strategy)
        task_vectors = {one: bench.task_vectors[one] for one in used}
        heads = {one: bench.heads[one] for one in used}
        whole = tuned_merge(bench, name, variant, task_vectors, heads, plan.generators)
        return Strategy(whole.update, whole.head, as_text(whole.chosen))
    inner = {
        family: _family(bench, name, variant, generators) for family, generators in plan.families.items()
    }
    whole = tuned_merge(
        bench,
        name,
        variant,
        {family: one.update for family, one in inner.items()},
        {family: one.head for family, one in inner.items()},
        plan.generators,
    )
    levels = {**{family: one.chosen for family, one in inner.items()}, "across": whole.chosen}
    tuned = "; ".join(f"{level}: {as_text(chosen)}" for level, chosen in levels.items() if chosen)
    return Strategy(whole.update, whole.head, tuned)


def _family(bench: Bench, name: str, variant: MergeVariant, generators: list[str]) -> TunedMerge:
    """Merge the specialists of one family's generators; a single one is its family's already."""
    task_vectors = {one: bench.task_vectors[one] for one in generators}
    heads = {one: bench.heads[one] for one in generators}
    if len(generators) == 1:
        return TunedMerge(dict(task_vectors[generators[0]]), dict(heads[generators[0]]), {})
    return tuned_merge(bench, name, variant, task_vectors, heads, generators)
