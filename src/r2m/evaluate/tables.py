"""From score files to the long table of metrics, and the files of results/tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.main_table import MainTable, main_table
from r2m.evaluate.metrics import best_threshold, binary_metrics
from r2m.evaluate.protocols import (
    AUC_COLUMNS,
    GROUPS,
    KINDS,
    PROTOCOLS,
    EvaluationContext,
    TestSet,
    describe,
    order_models,
    order_test_sets,
)
from r2m.files import atomic_path, write_text

SCORE_COLUMNS = ["image_id", "set", "domain", "split", "label", "generator", "logit"]
MODEL_COLUMNS = ["model", "kind", "method", "label", "threshold", "val_balanced_accuracy"]


@dataclass(frozen=True)
class Scores:
    """Logits of one model on the val and test images, and what the model is."""

    model: str
    kind: str
    method: str
    label: str
    frame: pd.DataFrame
    path: str


def read_scores(path: str | Path) -> Scores:
    """Read a score file.

    Raises R2MError for a missing file, column or metadata key, and for a logit that is not finite.
    """
    path = Path(path)
    try:
        schema = pq.read_schema(path)
        missing = [column for column in SCORE_COLUMNS if column not in schema.names]
        if missing:
            raise R2MError(
                f"{path}: expected the columns {', '.join(SCORE_COLUMNS)}; missing: {', '.join(missing)}"
            )
        frame = pq.read_table(path, columns=SCORE_COLUMNS).to_pandas()
    except (OSError, pa.ArrowInvalid) as error:
        raise R2MError(f"{path}: not a readable Parquet file of scores: {error}") from error
    metadata = json.loads((schema.metadata or {}).get(b"r2m", b"{}"))
    if "model" not in metadata or metadata.get("kind") not in KINDS:
        raise R2MError(f"{path}: metadata 'r2m' lacks a 'model', or a 'kind' of {', '.join(KINDS)}")
    bad = frame.loc[~np.isfinite(frame["logit"]), "image_id"]
    if len(bad):
        raise R2MError(f"{path}: {len(bad)} logits are not finite, the first of them for image {bad.iloc[0]}")
    return Scores(
        model=metadata["model"],
        kind=metadata["kind"],
        method=metadata.get("method") or "",
        label=metadata.get("label") or metadata["model"],
        frame=frame,
        path=str(path),
    )


def split_sets(
    scores: Scores, split: str, context: EvaluationContext
) -> list[tuple[TestSet, NDArray[np.float64], NDArray[np.float64]]]:
    """Sets of one split as (set, logits of reals, logits of fakes), in the order of the tables.

    Raises R2MError for a set without reals and for no sets at all. Reals that no generator has fakes of (a
    domain that folder generators do not cover) make no set.
    """
    rows = scores.frame[scores.frame["split"] == split]
    reals = {str(d): part["logit"].to_numpy(float) for d, part in rows[rows["label"] == 0].groupby("domain")}
    fakes = {
        (str(d), str(g)): part["logit"].to_numpy(float)
        for (d, g), part in rows[rows["label"] == 1].groupby(["domain", "generator"])
    }
    if not fakes:
        raise R2MError(f"{scores.path}: no fakes in split {split!r}: nothing to evaluate")
    described = order_test_sets(
        [describe(domain, generator, context) for domain, generator in fakes], context
    )
    for item in described:
        if item.domain not in reals:
            raise R2MError(f"{scores.path}: set {item.name} has fakes but no reals in split {split!r}")
    return [(item, reals[item.domain], fakes[item.domain, item.generator]) for item in described]


def evaluate_model(scores: Scores, context: EvaluationContext) -> tuple[pd.DataFrame, dict[str, str | float]]:
    """Metrics of one model on all of its test sets (AUC_COLUMNS), and its row for the table of models.

    The threshold behind ``accuracy`` is one per model, chosen on the val sets of trained generators only.
    """
    val_sets = [
        (real, fake) for item, real, fake in split_sets(scores, "val", context) if item.role == "train"
    ]
    if not val_sets:
        raise R2MError(f"{scores.path}: split 'val' has no fakes of a generator with role train")
    threshold, val_accuracy = best_threshold(val_sets)
    rows = []
    for item, real, fake in split_sets(scores, "test", context):
        labels = np.repeat([0, 1], [len(real), len(fake)])
        rows.append(
            {
                "model": scores.model,
                "kind": scores.kind,
                "method": scores.method,
                "test_set": item.name,
                "generator": item.generator,
                "family": item.family,
                "domain": item.domain,
                "protocol": item.protocol,
                "n_real": len(real),
                "n_fake": len(fake),
                **binary_metrics(labels, np.concatenate([real, fake]), threshold),
            }
        )
    model: dict[str, str | float] = {
        "model": scores.model,
        "kind": scores.kind,
        "method": scores.method,
        "label": scores.label,
        "threshold": threshold,
        "val_balanced_accuracy": val_accuracy,
    }
    return pd.DataFrame(rows, columns=AUC_COLUMNS), model


def evaluate(all_scores: Iterable[Scores], context: EvaluationContext) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics of every model (AUC_COLUMNS) and the models (MODEL_COLUMNS), both in the order of the tables.

    Raises R2MError if a model's name occurs twice, or if two models were not scored on the same test sets.
    """
    parts: dict[str, pd.DataFrame] = {}
    rows = []
    first: pd.DataFrame | None = None
    first_path = ""
    for scores in all_scores:
        if scores.model in parts:
            raise R2MError(f"{scores.path}: a second file of scores for model {scores.model!r}")
        part, row = evaluate_model(scores, context)
        if first is None:
            first, first_path = part, scores.path
        _check_same_sets(first, first_path, part, scores.path)
        parts[scores.model] = part
        rows.append(row)
    if not rows:
        raise R2MError("no files of scores were given")
    models = order_models(pd.DataFrame(rows, columns=MODEL_COLUMNS), context)
    return pd.concat([parts[name] for name in models["model"]], ignore_index=True), models


def _check_same_sets(first: pd.DataFrame, first_path: str, other: pd.DataFrame, other_path: str) -> None:
    """Raise R2MError unless both models were scored on the same test sets of the same sizes."""
    sizes = [frame.set_index("test_set")[["n_real", "n_fake"]].T.to_dict("list") for frame in (first, other)]
    for name in {**sizes[0], **sizes[1]}:
        counts = [size.get(name, [0, 0]) for size in sizes]
        if counts[0] != counts[1]:
            raise R2MError(
                f"test set {name}: {first_path} has {counts[0][0]} reals and {counts[0][1]} fakes, "
                f"but {other_path} has {counts[1][0]} and {counts[1][1]}; score both on the same manifests"
            )


def group_means(auc: pd.DataFrame, models: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Mean AUC of every model over each group of test sets, long form, ordered as `models` and GROUPS."""
    groups = [describe(d, g, context).group for d, g in zip(auc["domain"], auc["generator"], strict=True)]
    means = auc.assign(group=groups).groupby(["model", "group"])["auc"].agg(["size", "mean"])
    means = means.reset_index().rename(columns={"size": "n_sets", "mean": "auc"})
    rows = models[["model", "label", "kind", "method"]].merge(means, on="model")
    order = rows["model"].map(list(models["model"]).index) * len(GROUPS) + rows["group"].map(
        list(GROUPS).index
    )
    return rows.loc[order.sort_values().index].reset_index(drop=True)


def protocol_metrics(auc: pd.DataFrame, models: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean AUC per model and protocol, for `dvc metrics`."""
    means = auc.groupby(["model", "protocol"])["auc"].mean()
    return {
        model: {
            name: round(float(means[model, name]), 6) for name in PROTOCOLS if (model, name) in means.index
        }
        for model in models
    }


def write_tables(paths: Sequence[Path], context: EvaluationContext, out: Path) -> None:
    """Write auc.csv, models.csv, dumbbell.csv, main.md, main.tex and metrics.json into the folder `out`."""
    auc, models = evaluate((read_scores(path) for path in paths), context)
    table: MainTable = main_table(auc, models, context)
    _write_csv(auc, out / "auc.csv")
    _write_csv(models, out / "models.csv")
    _write_csv(group_means(auc, models, context), out / "dumbbell.csv")
    write_text(out / "main.md", table.to_markdown())
    write_text(out / "main.tex", table.to_latex())
    metrics = protocol_metrics(auc, list(models["model"]))
    write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
