"""Linear CKA and the jackknife beside plain transcriptions."""

import numpy as np
import pytest

from r2m.evaluate.cka import kernel, linear_cka
from r2m.evaluate.jackknife import interval, leave_one_out, standard_error

PEOPLE = [f"p{i % 9}" for i in range(24)]


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 40)) + 3
    return x, x @ random.normal(size=(40, 15)) + random.normal(size=(24, 15)) * 4


def plain_cka(x, y):
    """Kornblith et al. 2019, by the D×D products of centred features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def plain_unbiased_hsic(x, y):
    """Song et al. 2012, equation 4: sums over indices that all differ."""
    k, m = x @ x.T, y @ y.T
    n = len(k)
    pairs = triples = quadruples = 0.0
    for i in range(n):
        for j in set(range(n)) - {i}:
            pairs += k[i, j] * m[i, j]
            for q in set(range(n)) - {i, j}:
                triples += k[i, j] * m[i, q]
                for r in set(range(n)) - {i, j, q}:
                    quadruples += k[i, j] * m[q, r]
    return (
        pairs / (n * (n - 1))
        + quadruples / (n * (n - 1) * (n - 2) * (n - 3))
        - 2 * triples / (n * (n - 1) * (n - 2))
    )


def test_cka_is_that_of_the_feature_products_for_every_weighting(features):
    x, y = features
    names, weights = leave_one_out(PEOPLE)
    found, _ = linear_cka(kernel(x, weights), kernel(y, weights), weights)
    assert found[0] == pytest.approx(plain_cka(x, y))
    for at, name in enumerate(names):
        kept = np.array(PEOPLE) != name
        assert found[1 + at] == pytest.approx(plain_cka(x[kept], y[kept]))


def test_debiased_cka_is_that_of_sums_over_different_indices(features):
    x, y = (one[:9] for one in features)
    names, weights = leave_one_out(PEOPLE[:9])
    _, found = linear_cka(kernel(x, weights), kernel(y, weights), weights)
    for at, kept in enumerate([np.ones(9, bool), np.array(PEOPLE[:9]) != names[0]]):
        a, b = x[kept], y[kept]
        expected = plain_unbiased_hsic(a, b) / np.sqrt(plain_unbiased_hsic(a, a) * plain_unbiased_hsic(b, b))
        assert found[at] == pytest.approx(expected)


def test_only_the_debiased_form_is_near_zero_for_unrelated_features():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, 60, 300))
    weights = np.ones((60, 1))
    biased, debiased = linear_cka(kernel(x, weights), kernel(y, weights), weights)
    assert biased[0] > 0.8
    assert abs(debiased[0]) < 0.05


def test_rotation_scale_and_shift_change_nothing(features):
    x, y = features
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(40, 40)))[0]
    weights = np.ones((24, 1))
    one = linear_cka(kernel(x, weights), kernel(y, weights), weights)
    other = linear_cka(kernel(5 * x @ rotation - 70, weights), kernel(y, weights), weights)
    np.testing.assert_allclose(one, other)
    np.testing.assert_allclose(linear_cka(kernel(x, weights), kernel(3 * x, weights), weights), 1)


def test_features_that_do_not_vary_have_no_cka(features):
    weights = np.ones((24, 1))
    still = kernel(np.ones((24, 5)), weights)
    assert np.isnan(linear_cka(kernel(features[0], weights), still, weights)).all()


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(3).normal(size=30)
    _, weights = leave_one_out([str(i) for i in range(30)])
    means = values @ weights / weights.sum(0)
    assert standard_error(means[1:]) == pytest.approx(values.std(ddof=1) / np.sqrt(30))
    low, high = interval(means)
    assert (high - low) / 2 == pytest.approx(1.959964 * values.std(ddof=1) / np.sqrt(30))
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert np.isnan(standard_error(np.ones((2, 1)))).all()
