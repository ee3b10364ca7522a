"""Thresholds that tell fakes from reals over several sets; without torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def best_threshold(sets: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[float, float]:
    """Return the threshold with the greatest mean balanced accuracy over several sets, and that mean.

    `sets` holds (scores of reals, scores of fakes) per set. The candidates are the points half-way between
    neighbouring scores, and one beyond each end. Of equally good candidates the middle one is taken (the
    lower of two), so that the choice does not lean on a single extreme score.
    """
    candidates, specificity, sensitivity = _rates(sets)
    accuracy = (specificity + sensitivity) / 2
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    chosen = best[(len(best) - 1) // 2]
    return float(candidates[chosen]), float(accuracy[chosen])


def false_alarm_threshold(
    sets: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], fpr: float
) -> float:
    """Return the least threshold at which the mean false positive rate over several sets is at most `fpr`.

    The candidates are those of `best_threshold`. With fewer than 1 / `fpr` reals no real is above it.
    """
    candidates, specificity, _ = _rates(sets)
    return float(candidates[np.argmax(1 - specificity <= fpr + 1e-12)])


def _rates(
    sets: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return all candidates, rising, with the mean true negative and true positive rates of each."""
    reals = np.concatenate([real for real, _ in sets])
    fakes = np.concatenate([fake for _, fake in sets])
    real_weights = np.concatenate([np.full(len(real), 1 / len(real)) for real, _ in sets])
    fake_weights = np.concatenate([np.full(len(fake), 1 / len(fake)) for _, fake in sets])
    values = np.unique(np.concatenate([reals, fakes]))
    candidates = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    specificity = _weight_below(reals, real_weights, candidates) / len(sets)
    sensitivity = 1 - _weight_below(fakes, fake_weights, candidates) / len(sets)
    return candidates, specificity, sensitivity


def _weight_below(
    scores: NDArray[np.float64], weights: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the total weight of the scores (N,) that lie strictly below each threshold (M,)."""
    order = np.argsort(scores, kind="stable")
    cumulative = np.concatenate([[0.0], np.cumsum(weights[order])])
    return cumulative[np.searchsorted(scores[order], thresholds, side="left")]
