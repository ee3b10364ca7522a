"""Calibration and thresholds: what they are fitted to, and what does not move them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from r2m.models.decision import Decision, OperatingPoint
from r2m.train.deciding import FPRS, decide, platt
from r2m.train.threshold import best_threshold, false_alarm_threshold

logits = st.lists(st.floats(-8, 8, allow_subnormal=False), min_size=2, max_size=30)
sets_of_logits = st.lists(st.tuples(logits, logits), min_size=1, max_size=3)


def drawn(seed: int, n: int = 4000, slope: float = 0.5, offset: float = -1.0):
    """Logits of reals and fakes whose calibration has the slope and the offset given."""
    stream = np.random.default_rng(seed)
    # Normal with unit variance and means ∓1: the log-odds of x are 2x, so x = (slope · logit + offset) / 2.
    real, fake = (stream.normal(mean, 1, n) for mean in (-1, 1))
    return [((2 * values - offset) / slope) for values in (real, fake)]


def test_calibration_is_recovered_from_normal_scores() -> None:
    slope, offset = platt([tuple(drawn(0))])
    assert slope == pytest.approx(0.5, rel=0.05)
    assert offset == pytest.approx(-1.0, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(sets_of_logits)
def test_calibration_minimises_smoothed_cross_entropy(sets: list[tuple[list[float], list[float]]]) -> None:
    arrays = [(np.array(real), np.array(fake)) for real, fake in sets]
    slope, offset = platt(arrays)

    def loss(values) -> float:
        total = 0.0
        for real, fake in arrays:
            for logit, sign in ((real, -1), (fake, 1)):
                smoothed = (len(logit) + 1) / (len(logit) + 2)
                margin = sign * (values[0] * logit + values[1])
                total += np.mean(
                    smoothed * np.logaddexp(0, -margin) + (1 - smoothed) * np.logaddexp(0, margin)
                )
        return total

    least = minimize(loss, [0.0, 0.0], method="BFGS")
    if least.x[0] > 1e-3:
        assert loss((slope, offset)) <= least.fun + 1e-5
    elif least.x[0] < -1e-3:
        assert (slope, offset) == (1.0, 0.0)


def test_reversed_logits_are_not_calibrated(caplog: pytest.LogCaptureFixture) -> None:
    decision = decide([(np.array([1.0, 2.0, 3.0]), np.array([-3.0, -2.0, -1.0]))])
    assert (decision.slope, decision.offset) == (1.0, 0.0)
    assert "not calibrated" in caplog.text


@settings(max_examples=100, deadline=None)
@given(sets_of_logits, st.sampled_from([0.01, 0.05, 0.3]))
def test_false_alarm_threshold_is_the_least_that_keeps_the_rate(sets, fpr: float) -> None:
    def rate(threshold: float) -> float:
        return float(np.mean([np.mean(np.array(real) >= threshold) for real, _ in sets]))

    threshold = false_alarm_threshold([(np.array(r), np.array(f)) for r, f in sets], fpr)
    assert rate(threshold) <= fpr + 1e-9
    below = [value for real, _ in sets for value in real if value < threshold]
    if below:
        assert rate(max(below)) > fpr


def test_decision_is_of_probabilities() -> None:
    real, fake = drawn(1)
    decision = decide([(real, fake)])
    assert decision.threshold == pytest.approx(
        expit(decision.slope * best_threshold([(real, fake)])[0] + decision.offset)
    )
    assert [point.fpr for point in decision.operating_points] == list(FPRS)
    probabilities = decision.probabilities(real)
    for point in decision.operating_points:
        assert np.mean(probabilities >= point.threshold) == pytest.approx(point.fpr, abs=1 / len(real))
    # Equally many of both: of those with about p, the share p is fake.
    everything = np.concatenate([probabilities, decision.probabilities(fake)])
    labels = np.repeat([0, 1], [len(real), len(fake)])
    near = (everything > 0.25) & (everything < 0.35)
    assert labels[near].mean() == pytest.approx(0.3, abs=0.05)


def test_calls() -> None:
    points = (OperatingPoint(fpr=0.01, threshold=0.8), OperatingPoint(fpr=0.05, threshold=0.6))
    decision = Decision(threshold=0.3, operating_points=points)
    assert [decision.call(p) for p in (0.5, 0.6, 0.7999, 0.8)] == ["real", "unsure", "unsure", "fake"]
    assert [Decision(threshold=0.3).call(p) for p in (0.2, 0.3)] == ["real", "fake"]
    assert Decision().probabilities([-1.0, 0.0, 2.0]).tolist() == pytest.approx(
        expit([-1.0, 0.0, 2.0]).tolist()
    )
