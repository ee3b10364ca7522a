"""Composability: generators arrive one by one, and the detector is merged again or trained again."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.evaluate.scores import KEPT
from r2m.evaluate.tune import tune
from r2m.experiments.orders import subset_name, subsets
from r2m.merge import registry
from r2m.merge.variants import MergeVariant
from r2m.models import checkpoint
from r2m.options import combinations
from r2m.train.options import FinetuneOptions
from r2m.train.pairs import rows_of

SETTING = ["subset", "kind", "model"]
# Columns of steps.csv that the table sums over the steps of an order.
COSTS = ["training_images", "tuning_images", "training_seconds", "merging_seconds"]


@dataclass(frozen=True)
class Trained:
    """A model that was trained on some generators: a specialist, or a joint one on those of several.

    `seconds` are of CPU time, NaN where nothing was measured.
    """

    path: Path
    generators: list[str]
    options: FinetuneOptions
    seconds: float = math.nan

    def images(self, bench: Bench) -> int:
        """Return how many images its training has read: those of all batches and of all validations."""
        validations = math.ceil(self.options.steps / self.options.validate_every)
        return 2 * self.options.pairs * self.options.steps + validations * val_images(bench, self.generators)


def read_trained(path: Path, seconds: float = math.nan) -> Trained:
    """Read what a model of `r2m finetune` says of its training.

    Raises:
        R2MError: not such a model.
    """
    metadata = checkpoint.read_metadata(path)
    try:
        options = FinetuneOptions.model_validate_json(metadata["options"])
        return Trained(path, json.loads(metadata["generators"]), options, seconds)
    except (KeyError, ValueError) as error:
        raise R2MError(f"{path}: expected a model of `r2m finetune` ({error})") from error


def val_images(bench: Bench, generators: Sequence[str]) -> int:
    """Return how many images the val split of `generators` has, their reals included."""
    return sum(len(rows) for rows in rows_of(bench.inputs, list(generators), "val"))


def composability(
    bench: Bench,
    trained: Mapping[str, Trained],
    variants: Mapping[str, MergeVariant],
    orders: Sequence[Sequence[str]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Merge, tune and score every subset that the orders pass through.

    `trained` holds the model of every specialist by its name, and that of joint training on every larger
    subset by the subset's. A subset of several is merged by each of `variants`, whose grid is tried on the
    val split of the generators seen so far; a single specialist is what it is, by whatever method.

    Returns:
        The scores, columns subset, kind, model, `KEPT` and logit; each subset once. And one row for each
        order, step and method, with the cost of that step alone (`COSTS`): it trains the specialist that
        arrives and merges, or trains jointly on all that have arrived. Seconds differ from run to run.
    """
    parts = []
    merging: dict[tuple[str, str], tuple[int, float]] = {}
    for subset, names in subsets(orders).items():
        kind = "specialist" if len(names) == 1 else "joint"
        tensors, _ = checkpoint.load(trained[subset].path)
        scores = bench.scores(tensors, {})
        model = subset if kind == "specialist" else "joint"
        parts.append(scores.assign(subset=subset, kind=kind, model=model))
        for variant, options in variants.items() if len(names) > 1 else ():
            started = time.process_time()
            tensors, images = tuned(bench, variant, options, names, trained[subset].generators)
            merging[subset, variant] = images, time.process_time() - started
            scores = bench.scores(tensors, bench.head(options.head, names))
            parts.append(scores.assign(subset=subset, kind="merge", model=variant))
    scores = pd.concat(parts, ignore_index=True)[[*SETTING, *KEPT, "logit"]]
    return scores, steps(bench, trained, list(variants), merging, orders)


def tuned(
    bench: Bench, variant: str, options: MergeVariant, names: Sequence[str], generators: Sequence[str]
) -> tuple[dict[str, Tensor], int]:
    """Return the merge of the specialists `names`, and how many images choosing its options has read.

    Every candidate of the variant's grid is scored on the val split of `generators`, as in `r2m tune`; where
    there is no grid, there is nothing to choose and nothing to read.
    """
    candidates = combinations(options.tune)
    method = registry.get(options.method or variant)
    if len(candidates) == 1:
        return bench.merged(method, method.options.model_validate(options.options), names), 0
    arrived = replace(bench, task_vectors={name: bench.task_vectors[name] for name in names})
    head = bench.head(options.head, names)
    chosen, _ = tune(arrived, method.name, options.options, candidates, head=head, generators=generators)
    images = len(candidates) * val_images(bench, generators)
    return bench.merged(method, method.options.model_validate(chosen), names), images


def steps(
    bench: Bench,
    trained: Mapping[str, Trained],
    variants: Sequence[str],
    merging: Mapping[tuple[str, str], tuple[int, float]],
    orders: Sequence[Sequence[str]],
) -> pd.DataFrame:
    """Return one row for each order, step and method: what arrives, what has arrived, and `COSTS`.

    `merging` holds the images and seconds of each subset's and variant's tuning and merge.
    """
    images = {subset: one.images(bench) for subset, one in trained.items()}
    rows = []
    for number, order in enumerate(orders):
        for k, arrived in enumerate(order, start=1):
            subset = subset_name(order[:k])
            there = {"order": number, "k": k, "arrived": arrived, "subset": subset}
            there["generators"] = " ".join(trained[subset].generators)
            for variant in variants:
                tuning, seconds = merging[subset, variant] if k > 1 else (0, 0.0)
                costs = images[arrived], tuning, trained[arrived].seconds, seconds
                rows.append(
                    {**there, "kind": "merge", "model": variant, **dict(zip(COSTS, costs, strict=True))}
                )
            costs = images[subset], 0, trained[subset].seconds, 0.0
            rows.append({**there, "kind": "joint", "model": "joint", **dict(zip(COSTS, costs, strict=True))})
    return pd.DataFrame(rows)
