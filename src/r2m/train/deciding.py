"""Calibration and thresholds of a detector, fitted on the logits of images that it was not trained on."""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from r2m.models.decision import Decision, OperatingPoint
from r2m.train.threshold import best_threshold, false_alarm_threshold

logger = logging.getLogger(__name__)

# False positive rates that users ask for.
FPRS = (0.01, 0.05)

LogitSets = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]


def decide(sets: LogitSets) -> Decision:
    """Return the calibration and thresholds of a detector.

    `sets` holds (logits of reals, logits of fakes) per set; all sets count alike.
    """
    slope, offset = platt(sets)
    scaled = Decision(slope=slope, offset=offset)

    def probability(logit: float) -> float:
        return float(scaled.probabilities(logit))

    points = [
        OperatingPoint(fpr=fpr, threshold=probability(false_alarm_threshold(sets, fpr))) for fpr in FPRS
    ]
    return scaled.model_copy(
        update={"threshold": probability(best_threshold(sets)[0]), "operating_points": tuple(points)}
    )


def platt(sets: LogitSets) -> tuple[float, float]:
    """Return slope and offset of the sigmoid that fits labels best by cross-entropy.

    Where logits do not rise from reals to fakes there is nothing to calibrate: slope 1 and offset 0.

    In every set reals and fakes weigh the same. The targets are smoothed, (n + 1) / (n + 2) for n images of a
    class, so that there is a solution where classes do not overlap. Source: Platt, Probabilistic Outputs for
    Support Vector Machines, 1999, section 2.2.
    """
    logits, labels, weights = [], [], []
    for real, fake in sets:
        for label, values in ((0, real), (1, fake)):
            smoothed = (len(values) + 1) / (len(values) + 2)
            for target, share in ((label, smoothed), (1 - label, 1 - smoothed)):
                logits.append(values)
                labels.append(np.full(len(values), target))
                weights.append(np.full(len(values), share / len(values)))
    column = np.concatenate(logits)[:, None]
    spread = column.std() or 1.0
    weight = np.concatenate(weights)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        column / spread, np.concatenate(labels), weight / weight.mean()
    )
    slope, offset = float(fitted.coef_[0, 0] / spread), float(fitted.intercept_[0])
    if slope <= 0:
        logger.warning("fakes have no greater logits than reals on val: probabilities are not calibrated")
        return 1.0, 0.0
    return slope, offset
