"""What calibration and thresholds, all of them fitted on val, are worth on the test sets."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from r2m.evaluate.bootstrap import interval, resample
from r2m.evaluate.calibration import bins_of, pooled_rows
from r2m.evaluate.evaluation import THRESHOLDS, Evaluation
from r2m.evaluate.means import by_model
from r2m.evaluate.protocols import MODEL_KEYS, PROTOCOLS, EvaluationContext
from r2m.evaluate.score_matrix import people

OPERATING_COLUMNS = [
    *(*MODEL_KEYS, "label", "protocol", "fpr", "n_sets", "fpr_reached", "fpr_low", "fpr_high"),
    *("tpr", "tpr_low", "tpr_high"),
]
CALIBRATION_COLUMNS = [
    *(*MODEL_KEYS, "label", "protocol", "slope", "offset", "ece_before", "ece_before_low", "ece_before_high"),
    *("ece", "ece_low", "ece_high"),
]

# Weights (B, N) of all images → values (B, M) of all models.
Weighed = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def operating_table(
    evaluation: Evaluation, context: EvaluationContext, resamples: int, seed: int
) -> pd.DataFrame:
    """Error rates at the thresholds that val gave false positive rates of (OPERATING_COLUMNS).

    One row per model, protocol and stated `fpr`. `fpr_reached` is the share of test reals, and `tpr` that of
    fakes, at or above the threshold: means over the protocol's sets, with intervals over people.
    """
    parts = []
    for protocol in PROTOCOLS:
        sets = [test_set for test_set in evaluation.sets if test_set.item.protocol == protocol]
        if not sets:
            continue
        for fpr, column in THRESHOLDS.items():
            above = evaluation.matrix.scores >= evaluation.models[column].to_numpy(float)[:, None]
            table = evaluation.models[[*MODEL_KEYS, "label"]].assign(
                protocol=protocol, fpr=fpr, n_sets=len(sets)
            )
            for columns, rows in (
                (["fpr_reached", "fpr_low", "fpr_high"], [one.reals for one in sets]),
                (["tpr", "tpr_low", "tpr_high"], [one.fakes for one in sets]),
            ):
                rate = _mean_rate(above, rows)
                table[columns] = _with_interval(rate, evaluation, context, resamples, seed)
            parts.append(table)
    return by_model(parts)[OPERATING_COLUMNS]


def calibration_table(
    evaluation: Evaluation, context: EvaluationContext, resamples: int, seed: int
) -> pd.DataFrame:
    """Expected calibration errors before and after calibration (CALIBRATION_COLUMNS), with intervals.

    One row per model and protocol, whose test sets are pooled as in `reliability_table`. In resamples of
    people images stay in their bins.
    """
    parts = []
    matrix, labels = evaluation.matrix, evaluation.matrix.units["label"].to_numpy(float)
    for protocol, (rows, counts) in pooled_rows(evaluation.sets).items():
        table = evaluation.models[[*MODEL_KEYS, "label", "slope", "offset"]].assign(protocol=protocol)
        for name, values in (("ece_before", expit(matrix.scores)), ("ece", matrix.probabilities)):
            error = _pooled_error(values[:, rows], labels[rows], rows, counts.astype(float))
            columns = [name, f"{name}_low", f"{name}_high"]
            table[columns] = _with_interval(error, evaluation, context, resamples, seed)
        parts.append(table)
    return by_model(parts)[CALIBRATION_COLUMNS]


def _mean_rate(above: NDArray[np.bool_], sets: list[NDArray[np.int64]]) -> Weighed:
    """Return what computes the mean over sets of the weighted share of images that are `above` (M, N)."""

    def rate(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # no image of a set was drawn: NaN
            shares = [
                weights[:, rows] @ above[:, rows].T / weights[:, rows].sum(axis=1, keepdims=True)
                for rows in sets
            ]
        return np.mean(shares, axis=0)

    return rate


def _pooled_error(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.float64],
    rows: NDArray[np.int64],
    counts: NDArray[np.float64],
) -> Weighed:
    """Return what computes calibration errors of `probabilities` (M, R) of the images at `rows` (R,)."""
    gaps = []
    for own in probabilities:
        place = bins_of(own, counts)
        gap = np.zeros((len(own), place.max() + 1))
        gap[np.arange(len(own)), place] = own - labels
        gaps.append(gap)

    def error(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = weights[:, rows] * counts
        return np.stack([np.abs(drawn @ gap).sum(axis=1) for gap in gaps], axis=1) / drawn.sum(
            axis=1, keepdims=True
        )

    return error


def _with_interval(
    compute: Weighed, evaluation: Evaluation, context: EvaluationContext, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return values of all models with the limits of their intervals over people (M, 3)."""
    units = evaluation.matrix.units
    known = people(units, context)
    estimate = compute(np.ones((1, len(units))))[0]
    drawn = [
        compute(counts[:, known.index].astype(float)) for counts in resample(known.strata, resamples, seed)
    ]
    return np.stack([estimate, *interval(np.concatenate(drawn), estimate)], axis=1)
