"""The bootstrap of people against plain implementations, and its variance against repeated experiments."""

from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from r2m.evaluate import bootstrap
from r2m.evaluate.bootstrap import interval, resample, resampled_aucs, weighted_aucs
from r2m.evaluate.protocols import EvaluationContext, describe
from r2m.evaluate.score_matrix import People, SetRows, people

# Few distinct values, so that ties within and between the classes are common.
value = st.integers(-3, 3).map(float)
weighted = st.lists(st.tuples(value, st.integers(0, 3)), min_size=1, max_size=10)


def auc(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    return float(roc_auc_score(np.repeat([0, 1], [len(real), len(fake)]), np.concatenate([real, fake])))


def ones(count: int) -> NDArray[np.int64]:
    return np.ones((1, count), dtype=np.int64)


@settings(max_examples=200, deadline=None)
@given(weighted, weighted, st.randoms())
def test_weights_are_repetitions(
    reals: list[tuple[float, int]], fakes: list[tuple[float, int]], random: Random
) -> None:
    (real, real_weights), (fake, fake_weights) = (
        (np.array([v for v, _ in one]), np.array([[w for _, w in one]])) for one in (reals, fakes)
    )
    found = weighted_aucs(real, fake, real_weights, fake_weights)[0]
    if real_weights.sum() == 0 or fake_weights.sum() == 0:
        assert np.isnan(found)
        return
    repeated = auc(np.repeat(real, real_weights[0]), np.repeat(fake, fake_weights[0]))
    assert found == pytest.approx(repeated, abs=1e-12)
    order = random.sample(range(len(real)), len(real))
    assert weighted_aucs(real[order], fake, real_weights[:, order], fake_weights)[0] == found
    assert weighted_aucs(-fake, -real, fake_weights, real_weights)[0] == pytest.approx(found, abs=1e-12)


def test_a_stratum_keeps_its_number_and_its_draws() -> None:
    strata = ["b"] * 3 + ["a"] * 5 + ["b"] * 2
    counts = np.concatenate(list(resample(strata, 250, seed=1)))
    assert counts.shape == (250, 10)
    in_b = np.array(strata) == "b"
    assert (counts[:, in_b].sum(axis=1) == 5).all()
    assert (counts[:, ~in_b].sum(axis=1) == 5).all()
    alone = np.concatenate(list(resample(["a"] * 5, 250, seed=1)))
    np.testing.assert_array_equal(alone, counts[:, ~in_b])
    assert (np.concatenate(list(resample(["a"] * 5, 250, seed=2))) != alone).any()


def test_blocks_and_number_of_resamples_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resample(["a"] * 4, 250, seed=0)))
    monkeypatch.setattr(bootstrap, "BLOCK", 7)
    np.testing.assert_array_equal(np.concatenate(list(resample(["a"] * 4, 250, seed=0))), whole)
    np.testing.assert_array_equal(np.concatenate(list(resample(["a"] * 4, 30, seed=0))), whole[:30])


def sets_of(labels: list[int]) -> SetRows:
    item = describe("a", "g", EvaluationContext.model_validate(CONTEXT))
    places = np.array(labels)
    return SetRows(item, np.flatnonzero(places == 0), np.flatnonzero(places == 1))


CONTEXT = {"generators": {"g": {"family": "FS"}}, "domains": {"a": {"role": "train"}}}
unit = st.tuples(value, st.integers(0, 1), st.integers(0, 3))


@settings(max_examples=100, deadline=None)
@given(st.lists(unit, min_size=2, max_size=16).filter(lambda units: len({one for _, one, _ in units}) == 2))
def test_interval_holds_the_estimate(units: list[tuple[float, int, int]]) -> None:
    scores = np.array([[score for score, _, _ in units]])
    index, known = pd.factorize(np.array([person for _, _, person in units]))
    one = sets_of([label for _, label, _ in units])
    drawn = resampled_aucs(scores, [one], People(index, ["a"] * len(known)), 100, seed=0)
    estimate = np.array([[auc(scores[0, one.reals], scores[0, one.fakes])]])
    low, high = interval(drawn, estimate)
    assert 0 <= low[0, 0] <= estimate[0, 0] <= high[0, 0] <= 1


def test_interval_is_of_percentiles() -> None:
    drawn = np.linspace(0, 1, 1001)[:, None] * [1.0, 0.5]
    low, high = interval(drawn, np.array([0.5, 0.9]))
    np.testing.assert_allclose(low, [0.025, 0.0125])
    np.testing.assert_allclose(high, [0.975, 0.9], err_msg="extended to the estimate")
    drawn[0] = np.nan
    assert np.isfinite(interval(drawn, np.array([0.5, 0.3]))).all()


def experiment(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Four reals and four fakes of every person; a person moves all of its own alike."""
    index = np.tile(np.repeat(np.arange(count), 4), 2)
    own = rng.normal(0, 1, (2, count))[np.repeat([0, 1], 4 * count), index]  # reals and fakes apart
    gap = np.repeat([0.0, 1.0], 4 * count)
    return index, own + gap + 0.5 * rng.normal(size=8 * count)


def test_variance_is_that_of_repeated_experiments() -> None:
    """Drawing people gives the spread that new people give; drawing images would give half of it."""
    rng = np.random.default_rng(0)
    count = 40
    one = sets_of([0] * 4 * count + [1] * 4 * count)
    estimates, by_people, by_images = [], [], []
    for _ in range(300):
        index, scores = experiment(rng, count)
        estimates.append(auc(scores[one.reals], scores[one.fakes]))
    for _ in range(20):
        index, scores = experiment(rng, count)
        drawn = resampled_aucs(scores[None], [one], People(index, ["a"] * count), 200, seed=0)
        by_people.append(drawn.std())
        images = People(np.arange(len(scores)), ["a"] * len(scores))
        by_images.append(resampled_aucs(scores[None], [one], images, 200, seed=0).std())
    assert np.mean(by_people) == pytest.approx(np.std(estimates), rel=0.15)
    assert np.mean(by_images) < 0.65 * np.std(estimates)


def test_against_drawing_people_one_by_one() -> None:
    rng = np.random.default_rng(1)
    index, scores = experiment(rng, 12)
    one = sets_of([0] * 48 + [1] * 48)
    drawn = resampled_aucs(scores[None], [one], People(index, ["a"] * 12), 1000, seed=0)[:, 0, 0]
    plain = []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(index == person) for person in rng.integers(0, 12, 12)])
        plain.append(auc(scores[rows[rows < 48]], scores[rows[rows >= 48]]))
    assert drawn.mean() == pytest.approx(np.mean(plain), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(plain), rel=0.1)
    np.testing.assert_allclose(
        np.quantile(drawn, [0.025, 0.975]), np.quantile(plain, [0.025, 0.975]), atol=0.02
    )


def test_models_and_sets_share_the_people() -> None:
    """A model that is another one by a monotone map has the same AUC in every resample."""
    rng = np.random.default_rng(2)
    index, scores = experiment(rng, 10)
    one = sets_of([0] * 40 + [1] * 40)
    drawn = resampled_aucs(
        np.stack([scores, np.exp(scores), -scores]), [one, one], People(index, ["a"] * 10), 50, 0
    )
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    np.testing.assert_array_equal(drawn[:, :, 0], drawn[:, :, 1])
    np.testing.assert_allclose(drawn[:, 0], 1 - drawn[:, 2], atol=1e-12)


def test_people_of_two_domains_are_different_people(context: EvaluationContext) -> None:
    """`swap` stands for a domain of a generator's own reals, on which people of domain a are known."""
    units = pd.DataFrame(
        {"domain": ["a", "a", "b", "b", "swap", "swap"], "identity": ["1", "2", "1", "1", "2", "swap/x"]}
    )
    found = people(units, context)
    assert found.index[0] != found.index[2]
    assert found.index[2] == found.index[3]
    assert found.index[1] == found.index[4]
    assert len(found.strata) == 4
    assert [found.strata[place] for place in found.index] == ["a", "a+swap", "b", "b", "a+swap", "swap"]
