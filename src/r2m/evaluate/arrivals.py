"""AUC and cost as generators arrive one by one: means over orders of arrival, and cumulated costs."""

from pathlib import Path

import numpy as np
import pandas as pd

from r2m.errors import R2MError
from r2m.evaluate.experiment_means import set_aucs
from r2m.evaluate.orders import COSTS, SETTING
from r2m.evaluate.protocols import CROSS_DATASET, EvaluationContext

PARTS = ("seen", "to_come", "unseen")


def read_steps(path: Path) -> pd.DataFrame:
    """Read what the steps cost, names as text.

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
    by_setting = aucs.pivot_table("auc", SETTING, "part", "mean").reindex(columns=list(PARTS))
    alone = taken["k"] == 1
    keys = pd.MultiIndex.from_arrays(
        [
            taken["subset"],
            taken["kind"].mask(alone, "specialist"),
            taken["model"].mask(alone, taken["subset"]),
        ]
    )
    values = by_setting.reindex(keys).set_axis(taken.index)
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
