"""Whether a folder's logits are distributed as those of val's reals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from r2m.detection.detecting import Detection, ScoredFace
from r2m.detection.drift import LEAST, drift, logit_of
from r2m.detection.lines import drift_line
from r2m.models.decision import Decision

# Multiples of 1/64, so that scaling by powers of two and shifting is exact.
LOGITS = arrays(float, st.integers(LEAST, 60), elements=st.integers(-640, 640).map(lambda value: value / 64))


def drawn(count, mean=0.0, seed=0):
    return np.random.default_rng(seed).normal(mean, 2.0, count)


@given(LOGITS, LOGITS, st.sampled_from([0.25, 1.0, 8.0]), st.integers(-5, 5))
def test_units_of_logits_do_not_matter(reals, logits, scale, offset):
    one, other = drift(reals, logits), drift(scale * reals + offset, scale * logits + offset)
    assert one.statistic == other.statistic
    assert one.p_value == other.p_value
    assert one.shift == pytest.approx(other.shift, nan_ok=True)


@given(LOGITS, LOGITS)
def test_the_statistic_is_the_greatest_difference_of_shares(reals, logits):
    values = np.concatenate([reals, logits])
    shares = [np.mean(own[:, None] <= values, axis=0) for own in (reals, logits)]
    assert drift(reals, logits).statistic == pytest.approx(np.abs(shares[0] - shares[1]).max())


@given(LOGITS)
def test_what_is_the_same_does_not_differ(reals):
    found = drift(reals, reals)
    assert (found.statistic, found.p_value, found.is_found) == (0.0, 1.0, False)


def test_differences_and_their_direction():
    reals = drawn(200)
    assert not drift(reals, drawn(100, seed=1)).is_found
    for mean, word in ((3.0, "higher"), (-3.0, "lower")):
        found = drift(reals, drawn(100, mean, seed=1))
        assert found.is_found
        assert found.shift == pytest.approx(mean / 2, abs=0.4)
        line = drift_line(found)
        assert line.startswith(
            "warning: 100 files differ from the real photographs of val (Kolmogorov–Smirnov"
        )
        assert f"standard deviations {word}): there are fakes among them, or" in line
    assert drift_line(drift(reals, reals)).startswith("200 files do not differ from")


@pytest.mark.parametrize(("reals", "files"), [(200, LEAST - 1), (LEAST - 1, 200), (200, 0)])
def test_few_files_tell_nothing(reals, files):
    found = drift(drawn(reals), drawn(files, 9.0))
    assert not found.is_told
    assert not found.is_found
    assert np.isnan(found.p_value)
    assert drift_line(found).endswith(f"{files} are scored, and val has {reals}; expected 20 of both")


def test_a_detector_that_says_the_same_of_all():
    found = drift(np.zeros(30), np.ones(30))
    assert found.is_found
    assert np.isnan(found.shift)
    assert "median" not in drift_line(found)


def test_one_logit_stands_for_a_file():
    def face(number, seconds, logit):
        return ScoredFace(number, (0, 0, 1, 1), seconds, logit, 0.5)

    assert logit_of(Detection("a.jpg", Decision(), [face(0, None, 1.0), face(1, None, 9.0)])) == 1.0
    video = [face(0, float(second), second) for second in range(5)]
    assert logit_of(Detection("v.mp4", Decision(), [*video, face(1, 0.0, 9.0)])) == 2
