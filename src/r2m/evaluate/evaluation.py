"""From score files to the metrics of every model on every test set."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import interval, resampled_aucs
from r2m.evaluate.metrics import METRICS, Predictions, measure
from r2m.evaluate.protocols import (
    KINDS,
    MODEL_KEYS,
    SAMPLING,
    SET_COLUMNS,
    EvaluationContext,
    TestSet,
    model_columns,
    order_models,
)
from r2m.evaluate.score_matrix import ScoreMatrix, SetRows, people, set_rows
from r2m.models.decision import Decision
from r2m.train.deciding import FPRS, LogitSets, platt
from r2m.train.threshold import best_threshold, false_alarm_threshold

UNIT_COLUMNS = ["image_id", "label", "generator", "domain", "identity", "video"]
SCORE_COLUMNS = [*UNIT_COLUMNS, "set", "split", "logit"]
# False positive rate → the column of models.csv with its threshold.
THRESHOLDS = {fpr: f"threshold_fpr_{100 * fpr:g}" for fpr in FPRS}
MODEL_COLUMNS = [
    *(*MODEL_KEYS, "label", "threshold", "val_balanced_accuracy", "slope", "offset"),
    *THRESHOLDS.values(),
]
AUC_COLUMNS = [
    *(*MODEL_KEYS, *SET_COLUMNS, "n_real", "n_fake", "auc", "auc_low", "auc_high"),
    *(name for name in METRICS if name != "auc"),
]


@dataclass(frozen=True)
class Evaluation:
    """Everything that the tables are made of, on the level of images or of videos.

    `models` has MODEL_COLUMNS, `auc` has AUC_COLUMNS, both in the order of the tables. `matrix` has the
    images or videos of the test split as units and the same order of models; `sets` are its S test sets;
    `resampled` (B, M, S) are the AUCs in B resamples of people.
    """

    models: pd.DataFrame
    auc: pd.DataFrame
    matrix: ScoreMatrix
    sets: list[SetRows]
    resampled: NDArray[np.float64]

    @property
    def estimates(self) -> NDArray[np.float64]:
        """The AUCs (M, S) on all units."""
        table = self.auc.pivot_table(index="model", columns="test_set", values="auc", sort=False)
        return table.loc[self.matrix.models, [test_set.item.name for test_set in self.sets]].to_numpy(float)


@dataclass(frozen=True)
class Scores:
    """Logits of one model on the val and test images, and what the model is.

    `seed` is that of its training, None where it depends on none.
    """

    model: str
    kind: str
    method: str
    label: str
    frame: pd.DataFrame
    path: str
    seed: int | None = None


def read_scores(path: str | Path) -> Scores:
    """Read a score file; its frame has SCORE_COLUMNS, and `sampling` where the file has it.

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
        columns = [name for name in (*SCORE_COLUMNS, SAMPLING) if name in schema.names]
        frame = pq.read_table(path, columns=columns).to_pandas()
    except (OSError, pa.ArrowInvalid) as error:
        raise R2MError(f"{path}: not a readable Parquet file of scores: {error}") from error
    metadata = _metadata(schema)
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
        seed=metadata.get("seed"),
    )


def by_seed(paths: Sequence[Path]) -> dict[int | None, list[Path]]:
    """Seed → the score files of the models trained with it, and of those that depend on no seed.

    Raises R2MError for a file that cannot be read.
    """
    seeds: dict[Path, int | None] = {}
    for path in paths:
        try:
            seeds[path] = _metadata(pq.read_schema(path)).get("seed")
        except (OSError, pa.ArrowInvalid) as error:
            raise R2MError(f"{path}: not a readable Parquet file of scores: {error}") from error
    trained: list[int | None] = list(dict.fromkeys(seed for seed in seeds.values() if seed is not None))
    return {seed: [path for path, own in seeds.items() if own in (None, seed)] for seed in trained or [None]}


def _metadata(schema: pa.Schema) -> dict[str, Any]:
    return json.loads((schema.metadata or {}).get(b"r2m", b"{}"))


def split_of(scores: Scores, split: str) -> pd.DataFrame:
    """Rows of one split, sorted by image; raises R2MError where it has no fakes."""
    rows = scores.frame[scores.frame["split"] == split]
    if not (rows["label"] == 1).any():
        raise R2MError(f"{scores.path}: no fakes in split {split!r}: nothing to evaluate")
    return rows.sort_values("image_id", ignore_index=True)


def logits_of_val(
    scores: Scores, context: EvaluationContext, is_taken: Callable[[TestSet], bool]
) -> LogitSets:
    """Return (logits of reals, logits of fakes) of those sets of the val split that are taken."""
    rows = split_of(scores, "val")
    logits = rows["logit"].to_numpy(float)
    sets = set_rows(rows, context, f"{scores.path}: split 'val'")
    return [(logits[one.reals], logits[one.fakes]) for one in sets if is_taken(one.item)]


def describe_model(scores: Scores, context: EvaluationContext) -> dict[str, str | float]:
    """Row of a model for the table of models.

    Thresholds of logits and the calibration, slope and offset, come from the val sets of trained generators
    only. ``threshold`` is that behind ``accuracy``.
    """
    val_sets = logits_of_val(scores, context, lambda item: item.role == "train")
    if not val_sets:
        raise R2MError(f"{scores.path}: split 'val' has no fakes of a generator with role train")
    threshold, val_accuracy = best_threshold(val_sets)
    slope, offset = platt(val_sets)
    return {
        "model": scores.model,
        "kind": scores.kind,
        "method": scores.method,
        "label": scores.label,
        "threshold": threshold,
        "val_balanced_accuracy": val_accuracy,
        "slope": slope,
        "offset": offset,
        **{name: false_alarm_threshold(val_sets, fpr) for fpr, name in THRESHOLDS.items()},
    }


def collect(
    all_scores: Iterable[Scores], context: EvaluationContext
) -> tuple[pd.DataFrame, ScoreMatrix, list[SetRows]]:
    """Models (MODEL_COLUMNS), their scores of the test images in one matrix, and the test sets.

    Files are read one after the other, and their logits alone are kept.

    Raises R2MError if a model's name occurs twice, or if two models were not scored on the same images.
    """
    logits: dict[str, NDArray[np.float64]] = {}
    described = []
    units, sets, first = pd.DataFrame(), list[SetRows](), ""
    for scores in all_scores:
        if scores.model in logits:
            raise R2MError(f"{scores.path}: a second file of scores for model {scores.model!r}")
        described.append(describe_model(scores, context))
        rows = split_of(scores, "test")
        images = rows[[name for name in (*UNIT_COLUMNS, SAMPLING) if name in rows]]
        own_sets = set_rows(rows, context, f"{scores.path}: split 'test'")
        if not logits:
            units, sets, first = images, own_sets, scores.path
        _check_same_images(units, sets, first, images, own_sets, scores.path)
        logits[scores.model] = rows["logit"].to_numpy(float)
    if not logits:
        raise R2MError("no files of scores were given")
    models = order_models(pd.DataFrame(described, columns=MODEL_COLUMNS), context)
    names = list(models["model"])
    values = np.stack([logits[name] for name in names])
    return models, ScoreMatrix(units, names, values, calibrated(values, models)), sets


def calibrated(logits: NDArray[np.float64], models: pd.DataFrame) -> NDArray[np.float64]:
    """Return the probabilities (M, …) that the calibrations of M models make of logits (M, …)."""
    fitted = zip(models["slope"].to_numpy(float), models["offset"].to_numpy(float), logits, strict=True)
    return np.stack([Decision(slope=a, offset=b).probabilities(row) for a, b, row in fitted])


def _check_same_images(
    units: pd.DataFrame,
    sets: Sequence[SetRows],
    path: str,
    other: pd.DataFrame,
    other_sets: Sequence[SetRows],
    other_path: str,
) -> None:
    """Raise R2MError unless both models were scored on the same test images, those of the same sets."""
    sizes = [
        {test_set.item.name: (len(test_set.reals), len(test_set.fakes)) for test_set in scored}
        for scored in (sets, other_sets)
    ]
    for name in {**sizes[0], **sizes[1]}:
        (reals, fakes), (other_reals, other_fakes) = (size.get(name, (0, 0)) for size in sizes)
        if (reals, fakes) != (other_reals, other_fakes):
            raise R2MError(
                f"test set {name}: {path} has {reals} reals and {fakes} fakes, but {other_path} has "
                f"{other_reals} and {other_fakes}; score both on the same manifests"
            )
    if not units.equals(other):
        raise R2MError(f"{path} and {other_path} are of other images; score both on the same manifests")


def metrics_table(
    matrix: ScoreMatrix,
    sets: Sequence[SetRows],
    models: pd.DataFrame,
    thresholds: NDArray[np.float64],
    resampled: NDArray[np.float64],
) -> pd.DataFrame:
    """Metrics of every model on every test set (AUC_COLUMNS), from scores of images or of videos.

    `thresholds` (M,) are those of the accuracy. `resampled` (B, M, S) gives the intervals of the AUCs.
    """
    rows: list[dict[str, str | float]] = []
    for index, model in enumerate(model_columns(models)):
        for test_set in sets:
            predictions = Predictions(
                test_set.labels,
                matrix.scores[index, test_set.rows],
                matrix.probabilities[index, test_set.rows],
                float(thresholds[index]),
            )
            rows.append(
                {
                    **model,
                    **test_set.item.columns(),
                    "n_real": len(test_set.reals),
                    "n_fake": len(test_set.fakes),
                    **measure(predictions),
                }
            )
    table = pd.DataFrame(rows, columns=AUC_COLUMNS)
    estimates = table["auc"].to_numpy(float).reshape(len(models), len(sets))
    low, high = interval(resampled, estimates)
    return table.assign(auc_low=low.ravel(), auc_high=high.ravel())


def evaluate(
    all_scores: Iterable[Scores], context: EvaluationContext, resamples: int, seed: int
) -> Evaluation:
    """Metrics of all models with intervals of `resamples` resamples; raises R2MError like `collect`."""
    models, matrix, sets = collect(all_scores, context)
    resampled = resampled_aucs(matrix.scores, sets, people(matrix.units, context), resamples, seed)
    auc = metrics_table(matrix, sets, models, models["threshold"].to_numpy(float), resampled)
    return Evaluation(models, auc, matrix, sets, resampled)
