"""From score files to the long table of metrics, and the files of results/tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import resampled_aucs
from r2m.evaluate.calibration import reliability_table
from r2m.evaluate.cross import cross_auc
from r2m.evaluate.delong import comparisons
from r2m.evaluate.evaluation import Evaluation, metrics_table
from r2m.evaluate.intervals import interval_table, mean_intervals
from r2m.evaluate.protocols import (
    GROUPS,
    KINDS,
    MODEL_KEYS,
    PROTOCOLS,
    EvaluationContext,
    describe,
    order_models,
)
from r2m.evaluate.score_matrix import ScoreMatrix, SetRows, people, set_rows
from r2m.evaluate.seeds import mean_over_seeds, pooled
from r2m.evaluate.video import video_table
from r2m.files import atomic_path, write_text
from r2m.report.main_table import main_table
from r2m.train.threshold import best_threshold

UNIT_COLUMNS = ["image_id", "label", "generator", "domain", "identity", "video"]
SCORE_COLUMNS = [*UNIT_COLUMNS, "set", "split", "logit"]
MODEL_COLUMNS = [*MODEL_KEYS, "label", "threshold", "val_balanced_accuracy"]


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
    found: list[int | None] = list(dict.fromkeys(seed for seed in seeds.values() if seed is not None))
    return {seed: [path for path, own in seeds.items() if own in (None, seed)] for seed in found or [None]}


def _metadata(schema: pa.Schema) -> dict[str, Any]:
    return json.loads((schema.metadata or {}).get(b"r2m", b"{}"))


def split_of(scores: Scores, split: str) -> pd.DataFrame:
    """Rows of one split, sorted by image; raises R2MError where it has no fakes."""
    rows = scores.frame[scores.frame["split"] == split]
    if not (rows["label"] == 1).any():
        raise R2MError(f"{scores.path}: no fakes in split {split!r}: nothing to evaluate")
    return rows.sort_values("image_id", ignore_index=True)


def describe_model(scores: Scores, context: EvaluationContext) -> dict[str, str | float]:
    """Row of a model for the table of models.

    The threshold behind ``accuracy`` is one per model, chosen on the val sets of trained generators only.
    """
    rows = split_of(scores, "val")
    logits = rows["logit"].to_numpy(float)
    sets = set_rows(rows, context, f"{scores.path}: split 'val'")
    val_sets = [(logits[one.reals], logits[one.fakes]) for one in sets if one.item.role == "train"]
    if not val_sets:
        raise R2MError(f"{scores.path}: split 'val' has no fakes of a generator with role train")
    threshold, val_accuracy = best_threshold(val_sets)
    return {
        "model": scores.model,
        "kind": scores.kind,
        "method": scores.method,
        "label": scores.label,
        "threshold": threshold,
        "val_balanced_accuracy": val_accuracy,
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
        own_sets = set_rows(rows, context, f"{scores.path}: split 'test'")
        if not logits:
            units, sets, first = rows[UNIT_COLUMNS], own_sets, scores.path
        _check_same_images(units, sets, first, rows[UNIT_COLUMNS], own_sets, scores.path)
        logits[scores.model] = rows["logit"].to_numpy(float)
    if not logits:
        raise R2MError("no files of scores were given")
    models = order_models(pd.DataFrame(described, columns=MODEL_COLUMNS), context)
    names = list(models["model"])
    values = np.stack([logits[name] for name in names])
    return models, ScoreMatrix(units, names, values, expit(values)), sets


def _check_same_images(
    units: pd.DataFrame,
    sets: Sequence[SetRows],
    path: str,
    other: pd.DataFrame,
    other_sets: Sequence[SetRows],
    other_path: str,
) -> None:
    """Raise R2MError unless both models were scored on the same test images, those of the same sets."""
    sizes = [{one.item.name: (len(one.reals), len(one.fakes)) for one in each} for each in (sets, other_sets)]
    for name in {**sizes[0], **sizes[1]}:
        (reals, fakes), (other_reals, other_fakes) = (size.get(name, (0, 0)) for size in sizes)
        if (reals, fakes) != (other_reals, other_fakes):
            raise R2MError(
                f"test set {name}: {path} has {reals} reals and {fakes} fakes, but {other_path} has "
                f"{other_reals} and {other_fakes}; score both on the same manifests"
            )
    if not units.equals(other):
        raise R2MError(f"{path} and {other_path} are of other images; score both on the same manifests")


def evaluate(
    all_scores: Iterable[Scores], context: EvaluationContext, resamples: int, seed: int
) -> Evaluation:
    """Metrics of all models with intervals of `resamples` resamples; raises R2MError like `collect`."""
    models, matrix, sets = collect(all_scores, context)
    resampled = resampled_aucs(matrix.scores, sets, people(matrix.units, context), resamples, seed)
    auc = metrics_table(matrix, sets, models, models["threshold"].to_numpy(float), resampled)
    return Evaluation(models, auc, matrix, sets, resampled)


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


def write_tables(
    paths: Sequence[Path],
    context: EvaluationContext,
    out: Path,
    *,
    resamples: int,
    seed: int,
    reference: str | None,
) -> None:
    """Write all files of results/tables into the folder `out`.

    With several seeds of training, numbers are means over them. Intervals are from `resamples` resamples of
    people; `reference` is the model that the others are tested against. Raises R2MError where there is no
    such model, and like `collect`.
    """
    runs = {
        trained: evaluate((read_scores(path) for path in own), context, resamples, seed)
        for trained, own in by_seed(paths).items()
    }
    each = list(runs.values())
    made = pooled(each)
    models = made.models
    if reference is not None and reference not in set(models["model"]):
        raise R2MError(
            f"reference {reference!r}: no scores of this model; expected one of {', '.join(models['model'])}"
        )
    tested = pd.concat(
        [comparisons(run, reference).assign(seed=trained) for trained, run in runs.items()], ignore_index=True
    )
    means = mean_intervals(made, reference)
    if len(each) > 1:
        means["auc_sd"] = np.std([mean_intervals(run, None)["auc"] for run in each], axis=0, ddof=1)
    table = main_table([run.auc for run in each], models, context)
    spread = interval_table(means, tested, models, resamples, len(each))
    _write_csv(made.auc, out / "auc.csv")
    _write_csv(models, out / "models.csv")
    groups = [group_means(run.auc, run.models, context) for run in each]
    _write_csv(mean_over_seeds(groups, [*MODEL_KEYS, "label", "group"], ["auc"]), out / "dumbbell.csv")
    _write_csv(means, out / "intervals.csv")
    _write_csv(tested, out / "delong.csv", "%.6g")
    curves = [reliability_table(run.matrix, run.sets, run.models) for run in each]
    _write_csv(mean_over_seeds(curves, [*MODEL_KEYS, "protocol", "bin"]), out / "reliability.csv")
    videos = [video_table(run, context, resamples, seed) for run in each]
    _write_csv(mean_over_seeds(videos, [*MODEL_KEYS, "test_set"], ["auc"]), out / "video.csv")
    crossed = [cross_auc(run, context, resamples, seed) for run in each]
    keys = [*MODEL_KEYS, "test_set", "real_domain"]
    _write_csv(mean_over_seeds(crossed, keys, ["auc"]), out / "cross_auc.csv")
    write_text(out / "main.md", table.to_markdown())
    write_text(out / "main.tex", table.to_latex())
    write_text(out / "main_intervals.md", spread.to_markdown())
    write_text(out / "main_intervals.tex", spread.to_latex())
    metrics = protocol_metrics(made.auc, list(models["model"]))
    write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def _write_csv(frame: pd.DataFrame, path: Path, float_format: str = "%.6f") -> None:
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format=float_format, lineterminator="\n")
