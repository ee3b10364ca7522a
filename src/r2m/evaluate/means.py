"""Mean AUCs of models over test sets, with confidence intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from r2m.evaluate.bootstrap import interval
from r2m.evaluate.evaluation import Evaluation
from r2m.evaluate.protocols import MODEL_KEYS, PROTOCOLS, EvaluationContext, describe, mean_columns, panels

MEAN_COLUMNS = [
    *MODEL_KEYS,
    *("label", "protocol", "part", "n_sets", "auc", "auc_sd", "low", "high"),
    *("reference", "difference", "difference_low", "difference_high"),
]
# What stands beside a mean over images where its test sets are of videos.
_OF_VIDEOS = {"auc": "video_auc", "auc_sd": "video_auc_sd", "low": "video_low", "high": "video_high"}


def mean_intervals(evaluation: Evaluation, reference: str | None, context: EvaluationContext) -> pd.DataFrame:
    """Every mean of the main table with its interval (MEAN_COLUMNS); auc_sd, over seeds, is missing.

    `difference` is that of the reference minus the model, its interval from the same resamples. Without a
    reference, and for the reference itself, it is missing.
    """
    models, estimates = evaluation.models, evaluation.estimates
    own = None if reference is None else evaluation.matrix.models.index(reference)
    parts = []
    sets = [test_set.item for test_set in evaluation.sets]
    for (protocol, part), places in mean_columns(sets, context).items():
        mean, drawn = estimates[:, places].mean(axis=1), evaluation.resampled[:, :, places].mean(axis=2)
        low, high = interval(drawn, mean)
        table = models[[*MODEL_KEYS, "label"]].assign(
            protocol=protocol, part=part, n_sets=len(places), auc=mean, auc_sd=np.nan, low=low, high=high
        )
        table[["reference", "difference", "difference_low", "difference_high"]] = None
        if own is not None:
            difference = mean[own] - mean
            lower, upper = interval(drawn[:, [own]] - drawn, difference)
            table = table.assign(
                reference=reference, difference=difference, difference_low=lower, difference_high=upper
            )
            table.loc[own, ["reference", "difference", "difference_low", "difference_high"]] = None
        parts.append(table)
    return by_model(parts)[MEAN_COLUMNS]


def by_model(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables of one row per model as one table, in which the rows of a model stand together."""
    count = len(parts[0])
    order = np.arange(len(parts) * count).reshape(len(parts), count).T.ravel()
    return pd.concat(parts, ignore_index=True).iloc[order].reset_index(drop=True)


def over_trainings(
    means: Callable[[Evaluation], pd.DataFrame], pooled: Evaluation, runs: Sequence[Evaluation]
) -> pd.DataFrame:
    """Return the `means` of several trainings, pooled; for a single one of `runs`, auc_sd stays missing."""
    table = means(pooled)
    if len(runs) > 1:
        table["auc_sd"] = np.std([means(run)["auc"] for run in runs], axis=0, ddof=1)
    return table


def beside_videos(means: pd.DataFrame, of_videos: pd.DataFrame | None, keys: Sequence[str]) -> pd.DataFrame:
    """Return means over images with those over videos beside them, in rows with equal `keys`.

    The columns are video_auc, video_auc_sd, video_low and video_high. They are missing where a test set of a
    mean is not of videos, and left out without videos.
    """
    if of_videos is None:
        return means
    # The sets of videos are among those of images: as many of them are the same ones.
    columns = ["model", *keys, "n_sets"]
    return means.merge(of_videos[[*columns, *_OF_VIDEOS]].rename(columns=_OF_VIDEOS), on=columns, how="left")


def panel_means(auc: pd.DataFrame, models: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Mean AUC of every model over the test sets of each panel (`group`), ordered as `models` and panels."""
    shown = [describe(d, g, context).panel for d, g in zip(auc["domain"], auc["generator"], strict=True)]
    means = auc.assign(group=shown).groupby(["model", "group"])["auc"].agg(["size", "mean"])
    means = means.reset_index().rename(columns={"size": "n_sets", "mean": "auc"})
    rows = models[["model", "label", "kind", "method"]].merge(means, on="model")
    known = panels(context)
    order = rows["model"].map(list(models["model"]).index) * len(known) + rows["group"].map(known.index)
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
