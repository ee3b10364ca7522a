"""Metrics of one model on one test set, and the decision threshold chosen on validation scores."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from r2m.evaluate.calibration import expected_calibration_error, reliability


@dataclass(frozen=True)
class Predictions:
    """What a model says of N images or videos of both classes, of which label 1 (fake) is the positive one.

    `labels`, `scores` and `probabilities` have the shape (N,); a score at or over `threshold` counts as fake.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    threshold: float


@dataclass(frozen=True)
class Metric:
    """A column of auc.csv: its name for readers, and what computes it.

    `averaged` tells whether its mean over test sets means anything; `digits` are those that tables show.
    """

    title: str
    compute: Callable[[Predictions], float]
    greater_is_better: bool = True
    averaged: bool = True
    digits: int = 3


def area_under_curve(predictions: Predictions) -> float:
    """Area under the ROC."""
    return float(roc_auc_score(predictions.labels, predictions.scores))


def average_precision(predictions: Predictions) -> float:
    """Average precision: precision at every threshold, weighted by the recall that it adds."""
    return float(average_precision_score(predictions.labels, predictions.scores))


def accuracy(predictions: Predictions) -> float:
    """Share of labels that the threshold gives."""
    return float(np.mean((predictions.scores >= predictions.threshold) == (predictions.labels == 1)))


def calibration_error(predictions: Predictions) -> float:
    """Expected calibration error of the probabilities."""
    return expected_calibration_error(reliability(predictions.labels, predictions.probabilities))


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float:
    """Rate at which false positives and false negatives are equally frequent.

    The points of the empirical ROC are joined by straight lines, as for its area, and cut with the diagonal
    FPR = 1 − TPR. ``FPR + TPR − 1`` rises from −1 to 1 along the curve, so there is always one such rate.
    """
    fpr, tpr, _ = roc_curve(labels, scores)
    balance = fpr + tpr - 1
    after = int(np.argmax(balance >= 0))
    step = balance[after] - balance[after - 1]
    share = -balance[after - 1] / step
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def true_positive_rate(labels: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """Greatest true positive rate of a threshold whose false positive rate is at most ``fpr``.

    Only thresholds that the data show count, nothing is interpolated: with fewer than 1 / ``fpr`` reals, no
    real may be called fake.
    """
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(true[false <= fpr].max())


# The columns of metrics, in order: tables, means over seeds, videos and cards follow from them.
METRICS = {
    "auc": Metric("AUC", area_under_curve),
    "ap": Metric("AP", average_precision),
    "eer": Metric("EER", lambda given: equal_error_rate(given.labels, given.scores), greater_is_better=False),
    "tpr_at_fpr_1": Metric(
        "TPR at 1 % FPR", lambda given: true_positive_rate(given.labels, given.scores, fpr=0.01)
    ),
    "ece": Metric("ECE", calibration_error, greater_is_better=False),
    "accuracy": Metric("accuracy", accuracy),
}


def measure(predictions: Predictions) -> dict[str, float]:
    """Return all metrics of a model on one test set, by column."""
    return {name: metric.compute(predictions) for name, metric in METRICS.items()}
