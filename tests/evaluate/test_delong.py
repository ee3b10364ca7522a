"""DeLong's test against its definition over all pairs, against resampling, and Holm's correction."""

import itertools
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from r2m.evaluate.delong import ALPHA, COMPARISON_COLUMNS, auc_covariance, comparisons, delong_test, holm
from r2m.evaluate.evaluation import evaluate, read_scores
from r2m.evaluate.protocols import EvaluationContext

Scores = NDArray[np.float64]
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def matrices(models: int = 3) -> st.SearchStrategy[tuple[Scores, Scores]]:
    """Scores (models, 2 to 7) of reals and of fakes, with many ties."""
    rows = st.integers(2, 7).flatmap(
        lambda count: st.lists(
            st.lists(st.integers(-2, 2).map(float), min_size=count, max_size=count),
            min_size=models,
            max_size=models,
        )
    )
    return st.tuples(rows.map(np.array), rows.map(np.array))


def by_definition(real: Scores, fake: Scores) -> tuple[Scores, Scores]:
    """AUCs and covariance from the structural components of every pair, in loops."""
    models, (n, m) = len(real), (real.shape[1], fake.shape[1])
    wins = np.zeros((models, m, n))
    for model, i, j in itertools.product(range(models), range(m), range(n)):
        wins[model, i, j] = (fake[model, i] > real[model, j]) + 0.5 * (fake[model, i] == real[model, j])
    return wins.mean(axis=(1, 2)), np.cov(wins.mean(axis=2)) / m + np.cov(wins.mean(axis=1)) / n


@settings(max_examples=150, deadline=None)
@given(matrices())
def test_covariance_is_that_of_the_definition(scores: tuple[Scores, Scores]) -> None:
    aucs, covariance = auc_covariance(*scores)
    expected_aucs, expected = by_definition(*scores)
    np.testing.assert_allclose(aucs, expected_aucs, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(matrices(), st.randoms())
def test_order_and_monotone_maps_change_nothing(scores: tuple[Scores, Scores], random: Random) -> None:
    real, fake = scores
    _, _, p = delong_test(*auc_covariance(real, fake), 0)
    columns = [random.sample(range(one.shape[1]), one.shape[1]) for one in scores]
    _, _, shuffled = delong_test(*auc_covariance(real[:, columns[0]], fake[:, columns[1]]), 0)
    np.testing.assert_allclose(shuffled, p, atol=1e-9)
    _, _, mapped = delong_test(*auc_covariance(np.exp(real), np.exp(fake)), 0)
    np.testing.assert_allclose(mapped, p, atol=1e-9)
    _, _, turned = delong_test(*auc_covariance(real[::-1], fake[::-1]), 2)
    np.testing.assert_allclose(turned[::-1], p, atol=1e-9)
    assert ((p >= 0) & (p <= 1)).all()


@settings(max_examples=50, deadline=None)
@given(matrices(1))
def test_equal_models_have_p_one(scores: tuple[Scores, Scores]) -> None:
    real, fake = (np.repeat(one, 3, axis=0) for one in scores)
    _, z, p = delong_test(*auc_covariance(real, fake), 1)
    assert p.tolist() == [1, 1, 1]
    assert z.tolist() == [0, 0, 0]


def test_certain_and_untestable_differences() -> None:
    real, fake = (
        np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
        np.array([[1.0, 1.0], [0.0, 0.0], [2.0, 3.0]]),
    )
    error, _, p = delong_test(*auc_covariance(real, fake), 0)
    assert (error.tolist(), p.tolist()) == ([0, 0, 0], [1, 0, 1])
    error, _, p = delong_test(*auc_covariance(real[:, :1], fake), 0)
    assert np.isnan(error).all()
    assert np.isnan(p).all()


def two_models(rng: np.random.Generator, reals: int, fakes: int, gain: float = 0.0) -> tuple[Scores, Scores]:
    """Scores of two models that agree in part; the second has a wider gap by `gain`."""
    real, fake = (rng.normal(size=n) + 0.8 * rng.normal(size=(2, n)) for n in (reals, fakes))
    return real, fake + np.array([[1.0], [1.0 + gain]])


def test_standard_error_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(0)
    real, fake = two_models(rng, 150, 120)
    error, _, _ = delong_test(*auc_covariance(real, fake), 0)
    differences = []
    for _ in range(2000):
        rows = [rng.integers(0, one.shape[1], one.shape[1]) for one in (real, fake)]
        aucs, _ = auc_covariance(real[:, rows[0]], fake[:, rows[1]])
        differences.append(aucs[0] - aucs[1])
    assert error[1] == pytest.approx(np.std(differences), rel=0.06)


def test_p_is_that_of_exchanging_the_models() -> None:
    """Of two models alike, which is which can be drawn anew for every image (on ranks, so as to compare)."""
    rng = np.random.default_rng(1)
    real, fake = two_models(rng, 150, 120, gain=0.25)
    pooled = np.concatenate([real, fake], axis=1)
    ranks = pooled.argsort(axis=1).argsort(axis=1).astype(float)
    real, fake = ranks[:, :150], ranks[:, 150:]
    aucs, covariance = auc_covariance(real, fake)
    _, _, p = delong_test(aucs, covariance, 0)
    more = 0
    for _ in range(2000):
        exchanged = [np.where(rng.random(one.shape[1]) < 0.5, one, one[::-1]) for one in (real, fake)]
        drawn, _ = auc_covariance(*exchanged)
        more += abs(drawn[0] - drawn[1]) >= abs(aucs[0] - aucs[1])
    assert p[1] == pytest.approx(more / 2000, abs=0.03)
    assert 0.005 < p[1] < 0.5


def test_false_alarms_are_as_frequent_as_told() -> None:
    rng = np.random.default_rng(2)
    p = [delong_test(*auc_covariance(*two_models(rng, 60, 60)), 0)[2][1] for _ in range(1000)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_holm_by_hand() -> None:
    """The smallest p times 4, the next times 3 and so on, none smaller than the one before."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, np.nan, 0.03])), [0.5, np.nan, 0.06])
    assert holm(np.array([])).shape == (0,)


@settings(max_examples=150, deadline=None)
@given(probabilities, st.randoms())
def test_holm_properties(values: list[float], random: Random) -> None:
    p = np.array(values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(p * len(p), 1) + 1e-15).all(), "no stricter than Bonferroni"
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(holm(p[order]), adjusted[order])
    # Rejected one after the other, from the smallest p, until the first that is too large.
    rejected = 0
    while rejected < len(p) and np.sort(p)[rejected] < ALPHA / (len(p) - rejected):
        rejected += 1
    assert np.isclose(adjusted, ALPHA).any() or (adjusted < ALPHA).sum() == rejected


def test_comparisons(score_files: list[Path], context: EvaluationContext) -> None:
    made = evaluate(map(read_scores, score_files), context, resamples=200, seed=0)
    table = comparisons(made, "r2m")
    assert list(table.columns) == COMPARISON_COLUMNS
    assert len(table) == 6 * 8
    assert "r2m" not in set(table["model"])
    np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))
    aucs = made.auc.set_index(["model", "test_set"])["auc"]
    for row in table.to_dict("records"):
        assert row["auc"] == pytest.approx(aucs[row["model"], row["test_set"]])
        assert row["auc_reference"] == pytest.approx(aucs["r2m", row["test_set"]])
        assert row["difference"] == pytest.approx(row["auc_reference"] - row["auc"])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        sign = "better" if row["difference"] > 0 else "worse"
        assert row["significance"] == (sign if row["p_holm"] < ALPHA else "no")
    by = table.set_index(["model", "test_set"])["significance"]
    assert by["swap", "a/up"] == "better"
    assert by["weight_averaging", "a/inp"] == "no"


def test_a_model_compared_with_its_copy(
    score_files: list[Path], context: EvaluationContext, rewrite: Callable[..., Path]
) -> None:
    copied = pd.read_parquet(score_files[6])
    rewrite(score_files[5], lambda _: copied)
    table = comparisons(evaluate(map(read_scores, score_files[5:]), context, resamples=100, seed=0), "r2m")
    assert (table[["p", "p_holm"]] == 1).all(axis=None)
    assert (table[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert set(table["significance"]) == {"no"}
    assert comparisons(evaluate(map(read_scores, score_files[5:]), context, 100, 0), None).empty
