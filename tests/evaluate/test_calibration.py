from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import calibration_curve

from r2m.evaluate.calibration import (
    RELIABILITY_COLUMNS,
    expected_calibration_error,
    reliability,
    reliability_table,
)
from r2m.evaluate.evaluation import evaluate, read_scores
from r2m.evaluate.protocols import EvaluationContext

images = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(st.floats(0, 1), st.integers(0, 4).map(lambda k: k / 4))),
    min_size=1,
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(images, st.randoms())
def test_properties_of_curve_and_error(drawn: list[tuple[int, float]], random: Random) -> None:
    labels, probabilities = map(list, zip(*drawn, strict=True))
    curve = reliability(labels, probabilities)
    assert curve["n"].sum() == len(labels)
    assert (curve["n"] == curve["weight"]).all()
    assert curve["bin"].between(1, 15).all()
    assert curve["bin"].is_monotonic_increasing
    assert (curve["low"].to_numpy()[1:] > curve["high"].to_numpy()[:-1]).all(), "ties share a bin"
    assert curve["probability"].between(curve["low"] - 1e-12, curve["high"] + 1e-12).all()
    error = expected_calibration_error(curve)
    assert abs(np.mean(labels) - np.mean(probabilities)) - 1e-12 <= error <= 1
    random.shuffle(drawn)
    again = reliability(*map(list, zip(*drawn, strict=True)))
    assert expected_calibration_error(again) == pytest.approx(error, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(images, st.data())
def test_weights_are_repetitions(drawn: list[tuple[int, float]], data: st.DataObject) -> None:
    labels, probabilities = map(np.array, zip(*drawn, strict=True))
    weights = np.array(data.draw(st.lists(st.integers(1, 4), min_size=len(labels), max_size=len(labels))))
    curve = reliability(labels, probabilities, weights)
    repeated = reliability(np.repeat(labels, weights), np.repeat(probabilities, weights))
    columns = ["bin", "low", "high", "weight", "probability", "fakes"]
    np.testing.assert_allclose(curve[columns], repeated[columns], atol=1e-12)
    assert expected_calibration_error(curve) == pytest.approx(expected_calibration_error(repeated))


def test_curve_is_that_of_scikit_learn() -> None:
    """Where no probabilities are equal and the bins can be equally full."""
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.4, 0.4, 15 * 20)
    labels = (rng.random(300) < probabilities**2).astype(int)
    share, mean = calibration_curve(labels, probabilities, n_bins=15, strategy="quantile")
    curve = reliability(labels, probabilities)
    assert (curve["n"] == 20).all()
    np.testing.assert_allclose(curve["fakes"], share)
    np.testing.assert_allclose(curve["probability"], mean)
    assert expected_calibration_error(curve) == pytest.approx(np.mean(np.abs(share - mean)))


def test_known_errors() -> None:
    half = np.repeat([0, 1], 50)
    assert expected_calibration_error(reliability(half, np.full(100, 0.5))) == pytest.approx(0)
    assert expected_calibration_error(reliability(half, half.astype(float))) == 0
    assert expected_calibration_error(reliability(half, 1 - half.astype(float))) == 1
    assert expected_calibration_error(reliability(half, np.full(100, 0.9))) == pytest.approx(0.4)


def test_a_calibrated_model_has_a_small_error() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(50_000)
    labels = (rng.random(50_000) < probabilities).astype(int)
    assert expected_calibration_error(reliability(labels, probabilities)) < 0.01


def test_table_pools_the_sets_of_a_protocol(score_files: list, context: EvaluationContext) -> None:
    made = evaluate(map(read_scores, score_files[:2]), context, resamples=100, seed=0)
    table = reliability_table(made.matrix, made.sets, made.models)
    assert list(table.columns) == RELIABILITY_COLUMNS
    raw, table = table[~table["calibrated"]], table[table["calibrated"]]
    counts = table.groupby(["model", "protocol"])[["n", "weight"]].sum()
    assert counts.equals(raw.groupby(["model", "protocol"])[["n", "weight"]].sum())
    assert counts.loc[("swap", "in_distribution")].tolist() == [30 + 3 * 30, 3 * 60]
    assert counts.loc[("base", "unseen_generator")].tolist() == [60, 60]
    repeated = [one for one in made.sets if one.item.protocol == "in_distribution"]
    labels = np.concatenate([one.labels for one in repeated])
    probabilities = np.concatenate([made.matrix.probabilities[1, one.rows] for one in repeated])
    pooled = table[(table["model"] == "swap") & (table["protocol"] == "in_distribution")]
    expected = reliability(labels, probabilities)
    np.testing.assert_allclose(pooled["fakes"], expected["fakes"])
    assert expected_calibration_error(pooled) == pytest.approx(expected_calibration_error(expected))
    before = raw[(raw["model"] == "swap") & (raw["protocol"] == "in_distribution")]
    logits = np.concatenate([made.matrix.scores[1, one.rows] for one in repeated])
    np.testing.assert_allclose(before["probability"], reliability(labels, expit(logits))["probability"])
    one = made.sets[3]
    assert one.item.protocol == "unseen_generator"
    curve = reliability(one.labels, made.matrix.probabilities[1, one.rows])
    own = table[(table["model"] == "swap") & (table["protocol"] == "unseen_generator")]
    np.testing.assert_allclose(own["fakes"], curve["fakes"])
    row = made.auc[(made.auc["model"] == "swap") & (made.auc["test_set"] == one.item.name)].iloc[0]
    assert expected_calibration_error(own) == pytest.approx(row["ece"])
