"""Operating points and calibration errors on test, from thresholds and calibrations of val."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from r2m.evaluate.evaluation import Evaluation, evaluate, read_scores
from r2m.evaluate.operating import CALIBRATION_COLUMNS, OPERATING_COLUMNS, calibration_table, operating_table
from r2m.evaluate.protocols import EvaluationContext
from r2m.models.decision import Decision
from r2m.report.operating_table import operating_points_table


@pytest.fixture
def evaluation(score_files: list[Path], context: EvaluationContext) -> Evaluation:
    return evaluate((read_scores(path) for path in score_files), context, resamples=50, seed=0)


def test_rates_are_those_of_the_thresholds(evaluation: Evaluation, context: EvaluationContext) -> None:
    table = operating_table(evaluation, context, resamples=50, seed=0)
    assert list(table.columns) == OPERATING_COLUMNS
    assert len(table) == len(evaluation.models) * 3 * 2
    thresholds = evaluation.models.set_index("model")
    for row in table.itertuples():
        place = evaluation.matrix.models.index(row.model)
        cut = thresholds.loc[row.model, f"threshold_fpr_{100 * row.fpr:g}"]
        own = [test_set for test_set in evaluation.sets if test_set.item.protocol == row.protocol]
        logits = evaluation.matrix.scores[place]
        assert row.fpr_reached == pytest.approx(np.mean([np.mean(logits[s.reals] >= cut) for s in own]))
        assert row.tpr == pytest.approx(np.mean([np.mean(logits[s.fakes] >= cut) for s in own]))
        assert row.fpr_low <= row.fpr_reached <= row.fpr_high
        assert row.tpr_low <= row.tpr <= row.tpr_high


def test_probabilities_are_calibrated_on_val(evaluation: Evaluation) -> None:
    for row, logits, probabilities in zip(
        evaluation.models.itertuples(), evaluation.matrix.scores, evaluation.matrix.probabilities, strict=True
    ):
        fitted = Decision(slope=row.slope, offset=row.offset)
        np.testing.assert_allclose(probabilities, fitted.probabilities(logits))


def test_errors_before_and_after(evaluation: Evaluation, context: EvaluationContext) -> None:
    table = calibration_table(evaluation, context, resamples=50, seed=0)
    assert list(table.columns) == CALIBRATION_COLUMNS
    for name in ("ece_before", "ece"):
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    own = table[(table["model"] == "r2m") & (table["protocol"] == "in_distribution")].iloc[0]
    place = evaluation.matrix.models.index("r2m")
    rows = np.concatenate([s.rows for s in evaluation.sets if s.item.protocol == "in_distribution"])
    labels = evaluation.matrix.units["label"].to_numpy()[rows]
    for name, p in (
        ("ece_before", expit(evaluation.matrix.scores[place, rows])),
        ("ece", evaluation.matrix.probabilities[place, rows]),
    ):
        order = np.argsort(p, kind="stable")
        bins = np.array_split(order, 15)
        by_hand = sum(len(b) * abs(p[b].mean() - labels[b].mean()) for b in bins) / len(p)
        assert own[name] == pytest.approx(by_hand, abs=0.03)


def test_readers_table(evaluation: Evaluation, context: EvaluationContext) -> None:
    points = operating_table(evaluation, context, resamples=50, seed=0)
    errors = calibration_table(evaluation, context, resamples=50, seed=0)
    lines = operating_points_table(points, errors).to_markdown().splitlines()
    header = (
        "| Model | FPR at 1 % | TPR at 1 % | FPR at 5 % | TPR at 5 % | ECE before calibration | ECE after |"
    )
    assert lines[0] == header
    assert sum(line.startswith("| *") for line in lines) == 3
    assert sum(line.startswith("| ") for line in lines) == 1 + 3 + 3 * len(evaluation.models)
