"""Metrics of one model on one test set."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve


def binary_metrics(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, float]:
    """Metrics of scores of shape (N,): ``auc``, ``ap``, ``eer``, ``tpr_at_fpr_1`` and ``accuracy``.

    They are the area under the ROC, average precision, equal error rate, true positive rate at a false
    positive rate of 1 %, and accuracy at ``threshold``.

    Label 1 (fake) is the positive class; a score equal to the threshold counts as fake. Both classes must
    occur.
    """
    labels = np.asarray(labels)
    scores = np.asarray(scores, dtype=np.float64)
    return {
        "auc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
        "eer": equal_error_rate(labels, scores),
        "tpr_at_fpr_1": true_positive_rate(labels, scores, 0.01),
        "accuracy": float(np.mean((scores >= threshold) == (labels == 1))),
    }


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
