"""Composability: generators arrive one by one, and the detector is merged again or trained again."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from r2m.dotted import combinations
from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.evaluate.experiment_means import read_settings, set_aucs
from r2m.evaluate.protocols import CROSS_DATASET, EvaluationContext
from r2m.evaluate.rendered import Rendered
from r2m.evaluate.scores import KEPT
from r2m.evaluate.tune import tune
from r2m.experiments.orders import subset_name, subsets
from r2m.merge import registry
from r2m.models import checkpoint
from r2m.params import FinetuneOptions, MergeVariant
from r2m.train.pairs import rows_of

PARTS = {"seen": "Seen", "to_come": "To come", "unseen": "Unseen"}
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
    chosen, _ = tune(
        method.name,
        options.options,
        candidates,
        detector=bench.detector,
        base=bench.base,
        task_vectors={name: bench.task_vectors[name] for name in names},
        head=bench.head(options.head, names),
        inputs=bench.inputs,
        generators=list(generators),
        device=bench.device,
        precision=bench.precision,
    )
    bench.inputs.release()
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


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the scores in `source` and of the steps in steps.csv beside it.

    It has a row for each number of generators and each method: means over the orders, and the extremes.

    Raises:
        R2MError: a file is missing or has other columns.
    """
    scores, taken = read_settings(source, SETTING), read_steps(source.with_name("steps.csv"))
    frame = means(part_means(scores, taken, context), cumulated(taken))
    methods = [
        context.variant_label(model) if kind == "merge" else "Joint retraining"
        for kind, model in zip(frame["kind"], frame["model"], strict=True)
    ]
    frame.insert(3, "method", methods)
    aucs = {
        key: heading
        for part, title in PARTS.items()
        for key, heading in ((part, title), (f"{part}_low", "min"), (f"{part}_high", "max"))
    }
    count = taken["order"].nunique()
    orders = f"{count} random orders" if count > 1 else "one random order"
    return Rendered(
        frame,
        {"k": "K", "method": "Method", **aucs, "images": "Images read", "seconds": "CPU seconds"},
        caption=(
            "K generators have arrived, one after the other. Mean AUC in the training domain on those seen so"
            f" far, on those still to come and on the unseen ones: mean, min and max over {orders}."
            " K = 1 is the specialist itself. Every merge is tuned again on the val split of the"
            " generators seen. Images read (by training, validation and tuning) and CPU seconds are"
            " cumulated over the steps, each of which trains one specialist and merges, or trains jointly on"
            " all that have arrived; the frozen lower blocks run once per image for both. Best of a K bold,"
            " second underlined."
        ),
        label="composability",
        best=list(PARTS),
        section="k",
        digits={"images": 0, "seconds": 0},
    )


def read_steps(path: Path) -> pd.DataFrame:
    """Read the steps that `composability` returned, names as text.

    Raises:
        R2MError: not a readable CSV file, or without a column.
    """
    text = ["arrived", "subset", "generators", "kind", "model"]
    try:
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(text, str),
            keep_default_na=False,
            na_values={column: [""] for column in COSTS},
        )
        return frame[["order", "k", *text, *COSTS]]
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected the steps of composability ({error})") from error


def part_means(scores: pd.DataFrame, taken: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return one row for each row of `taken`: order, k, kind, model and the mean test AUC of `PARTS`.

    Generators are those of the training domain. Where there are none of a part (nothing is to come after the
    last step), the mean is NaN.
    """
    aucs = set_aucs(scores[scores["split"] == "test"], SETTING, context)
    aucs = aucs[aucs["protocol"] != CROSS_DATASET]
    seen = taken.drop_duplicates("subset").set_index("subset")["generators"].str.split()
    pairs = zip(aucs["subset"], aucs["generator"], strict=True)
    aucs = aucs.assign(
        part=np.select(
            [[generator in seen[subset] for subset, generator in pairs], aucs["role"] == "train"],
            ["seen", "to_come"],
            "unseen",
        )
    )
    found = aucs.pivot_table("auc", SETTING, "part", "mean").reindex(columns=list(PARTS))
    alone = taken["k"] == 1
    keys = pd.MultiIndex.from_arrays(
        [
            taken["subset"],
            taken["kind"].mask(alone, "specialist"),
            taken["model"].mask(alone, taken["subset"]),
        ]
    )
    values = found.reindex(keys).set_axis(taken.index)
    return pd.concat([taken[["order", "k", "kind", "model"]], values], axis=1)


def cumulated(taken: pd.DataFrame) -> pd.DataFrame:
    """Return order, k, kind, model, and the images and seconds of all steps up to each; NaN as unknown."""
    keys = ["order", "kind", "model"]
    ordered = taken.sort_values("k", kind="stable")
    sums = ordered.groupby(keys, sort=False)[COSTS].cumsum(skipna=False)
    images, seconds = (sums[list(columns)].sum(axis=1, skipna=False) for columns in (COSTS[:2], COSTS[2:]))
    return ordered[["order", "k", "kind", "model"]].assign(images=images, seconds=seconds)


def means(aucs: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each k, kind and model: means over the orders; of AUCs also _low and _high."""
    keys = ["k", "kind", "model"]
    joined = aucs.merge(costs, on=["order", *keys], validate="one_to_one")
    groups = joined.groupby(keys, sort=False)
    columns = {}
    for part in PARTS:
        for suffix, how in (("", "mean"), ("_low", "min"), ("_high", "max")):
            columns[f"{part}{suffix}"] = groups[part].agg(how)
    for cost in ("images", "seconds"):
        columns[cost] = groups[cost].agg(lambda values: values.mean(skipna=False))
    return pd.DataFrame(columns).reset_index().sort_values("k", kind="stable", ignore_index=True)
