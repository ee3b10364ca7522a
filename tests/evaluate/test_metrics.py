import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from r2m.evaluate.metrics import (
    METRICS,
    Predictions,
    equal_error_rate,
    measure,
    true_positive_rate,
)
from r2m.train.threshold import best_threshold

# Few distinct values, so that ties within and between the classes are common.
scores = st.lists(st.integers(-4, 4).map(lambda x: x / 2), min_size=1, max_size=12)


def labelled(reals: list[float], fakes: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([0, 1], [len(reals), len(fakes)]), np.array(reals + fakes)


def naive_auc(reals: list[float], fakes: list[float]) -> float:
    return float(np.mean([(f > r) + 0.5 * (f == r) for f in fakes for r in reals]))


def naive_eer(reals: list[float], fakes: list[float]) -> float:
    """Walk along every segment of the ROC in exact thresholds and bisect for FPR = FNR."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(reals + fakes), reverse=True):
        points.append((np.mean(np.array(reals) >= threshold), np.mean(np.array(fakes) < threshold)))
    for (fpr0, fnr0), (fpr1, fnr1) in itertools.pairwise(points):
        if fpr1 >= fnr1:
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                ahead = fpr0 + middle * (fpr1 - fpr0) >= fnr0 + middle * (fnr1 - fnr0)
                low, high = (low, middle) if ahead else (middle, high)
            return fpr0 + high * (fpr1 - fpr0)
    raise AssertionError


def naive_tpr(reals: list[float], fakes: list[float], fpr: float) -> float:
    """Best of every threshold that is a score, and of one above all."""
    thresholds = [*reals, *fakes, np.inf]
    allowed = [t for t in thresholds if np.mean(np.array(reals) >= t) <= fpr]
    return float(max(np.mean(np.array(fakes) >= t) for t in allowed))


def naive_ap(reals: list[float], fakes: list[float]) -> float:
    """Sum of precision times the step in recall over falling thresholds."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(reals + fakes), reverse=True):
        hits, alarms = np.sum(np.array(fakes) >= threshold), np.sum(np.array(reals) >= threshold)
        total += hits / (hits + alarms) * (hits / len(fakes) - recall)
        recall = hits / len(fakes)
    return float(total)


@settings(max_examples=150, deadline=None)
@given(scores, scores)
def test_metrics_agree_with_naive_implementations(reals: list[float], fakes: list[float]) -> None:
    labels, values = labelled(reals, fakes)
    metrics = measure(Predictions(labels, values, expit(values), 0.5))
    assert list(metrics) == list(METRICS)
    assert metrics["auc"] == pytest.approx(naive_auc(reals, fakes), abs=1e-12)
    assert metrics["eer"] == pytest.approx(naive_eer(reals, fakes), abs=1e-9)
    assert metrics["ap"] == pytest.approx(naive_ap(reals, fakes), abs=1e-12)
    assert metrics["tpr_at_fpr_1"] == pytest.approx(naive_tpr(reals, fakes, 0.01))
    right = sum(r < 0.5 for r in reals) + sum(f >= 0.5 for f in fakes)
    assert metrics["accuracy"] == pytest.approx(right / (len(reals) + len(fakes)))


@settings(max_examples=100, deadline=None)
@given(scores, scores, st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0]), st.randoms())
def test_true_positive_rate(reals: list[float], fakes: list[float], fpr: float, random: Random) -> None:
    labels, values = labelled(reals, fakes)
    rate = true_positive_rate(labels, values, fpr)
    assert rate == pytest.approx(naive_tpr(reals, fakes, fpr))
    order = random.sample(range(len(labels)), len(labels))
    assert true_positive_rate(labels[order], values[order], fpr) == rate


def test_true_positive_rate_is_not_interpolated() -> None:
    reals, fakes = [0.0] * 99 + [5.0], [1.0] * 3 + [6.0]
    assert true_positive_rate(*labelled(reals, fakes), 0.01) == 1.0
    assert true_positive_rate(*labelled(reals[1:], fakes), 0.01) == 0.25


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=4))
def test_threshold_maximises_mean_balanced_accuracy(sets: list[tuple[list[float], list[float]]]) -> None:
    def balanced(threshold: float) -> float:
        return float(
            np.mean(
                [(np.mean(np.array(r) < threshold) + np.mean(np.array(f) >= threshold)) / 2 for r, f in sets]
            )
        )

    threshold, accuracy = best_threshold([(np.array(r, float), np.array(f, float)) for r, f in sets])
    assert accuracy == pytest.approx(balanced(threshold))
    assert accuracy >= max(balanced(t) for t in np.linspace(-3, 3, 121)) - 1e-9


def test_known_values() -> None:
    labels, separated = labelled([0.0, 1.0], [2.0, 3.0])
    assert equal_error_rate(labels, separated) == 0
    assert equal_error_rate(labels, -separated) == 1
    assert equal_error_rate(labels, np.zeros(4)) == 0.5
    assert best_threshold([(np.array([0.0, 1.0]), np.array([2.0, 3.0]))]) == (1.5, 1.0)


def test_small_set_counts_as_much_as_a_large_one() -> None:
    large = (np.full(1000, 0.0), np.full(1000, 1.0))
    small = (np.full(3, 2.0), np.full(3, 3.0))
    single = best_threshold([large, small])
    assert single[1] == pytest.approx(0.75)
    assert best_threshold([large, large, small])[0] == 0.5
    assert best_threshold([large, small, small])[0] == 2.5
