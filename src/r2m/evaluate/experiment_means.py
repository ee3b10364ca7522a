"""Metrics of experiments, whose scores are those of many settings below each other."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from r2m.errors import R2MError
from r2m.evaluate.protocols import PROTOCOLS, EvaluationContext, describe

TITLES = {"val_auc": "Val", **{name: f"Test: {title.lower()}" for name, title in PROTOCOLS.items()}}


def set_aucs(scores: pd.DataFrame, by: Sequence[str], context: EvaluationContext) -> pd.DataFrame:
    """Return the AUC of every setting on every set of both splits.

    `scores` has the columns `by`, which name a setting, and those of a file of scores. The result has `by`,
    split, domain, generator, role, protocol and auc, settings in their first order.

    Raises:
        R2MError: fakes without reals of their domain, or a generator that the context lacks.
    """
    rows = []
    for values, part in scores.groupby([*by, "split"], sort=False):
        *setting, split = values
        reals = {str(name): images["logit"] for name, images in part[part["label"] == 0].groupby("domain")}
        for (domain, generator), fakes in part[part["label"] == 1].groupby(["domain", "generator"]):
            test_set = describe(str(domain), str(generator), context)
            if test_set.domain not in reals:
                raise R2MError(f"scores: set {test_set.name} has fakes but no reals in split {split!r}")
            logits = np.concatenate([reals[test_set.domain], fakes["logit"]])
            labels = np.repeat([0, 1], [len(reals[test_set.domain]), len(fakes)])
            auc = float(roc_auc_score(labels, logits))
            rows.append(
                [*setting, split, test_set.domain, test_set.generator, test_set.role, test_set.protocol, auc]
            )
    return pd.DataFrame(rows, columns=[*by, "split", "domain", "generator", "role", "protocol", "auc"])


def protocol_means(scores: pd.DataFrame, by: Sequence[str], context: EvaluationContext) -> pd.DataFrame:
    """Return one row per setting: mean AUC on val over trained generators, and on test over every protocol.

    Columns: `by`, val_auc, and the protocols that occur. Choices may rest on val_auc, never on the others.
    """
    aucs = set_aucs(scores, by, context)
    trained = aucs[(aucs["split"] == "val") & (aucs["role"] == "train")]
    test = aucs[aucs["split"] == "test"].pivot_table("auc", list(by), "protocol", "mean", sort=False)
    protocols = [name for name in PROTOCOLS if name in test]
    val = trained.groupby(list(by), sort=False)["auc"].mean()
    return test[protocols].assign(val_auc=val)[["val_auc", *protocols]].reset_index()


def read_settings(path: Path, by: Sequence[str]) -> pd.DataFrame:
    """Read the scores of an experiment, which have the columns `by` beside those of a file of scores.

    Raises:
        R2MError: not a readable Parquet file, or without a column.
    """
    return read_columns(path, [*by, "domain", "split", "label", "generator", "logit"])


def read_columns(path: Path, columns: Sequence[str], what: str = "scores") -> pd.DataFrame:
    """Read columns of what an experiment computed.

    Raises:
        R2MError: not a readable Parquet file, or without a column.
    """
    try:
        return pd.read_parquet(path, columns=list(columns))
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected {what} with the columns {', '.join(columns)} ({error})") from error


def read_notes(path: Path, experiment: str, keys: Sequence[str]) -> dict[str, str]:
    """Return what the scores of an experiment say of themselves.

    Raises:
        R2MError: not the scores of this experiment.
    """
    try:
        notes = json.loads((pq.read_schema(path).metadata or {})[b"r2m"])
        return {key: str(notes[key]) for key in keys}
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected the scores of the experiment {experiment} ({error})") from error
