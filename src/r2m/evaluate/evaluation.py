"""The metrics of every model on every test set, and what they are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.evaluate.bootstrap import interval
from r2m.evaluate.calibration import expected_calibration_error, reliability
from r2m.evaluate.metrics import binary_metrics
from r2m.evaluate.protocols import AUC_COLUMNS, model_columns
from r2m.evaluate.score_matrix import ScoreMatrix, SetRows


@dataclass(frozen=True)
class Evaluation:
    """Everything that the tables are made of.

    `models` has the columns model, kind, method, label and threshold, `auc` has AUC_COLUMNS, both in the
    order of the tables. `matrix` has the test images as units and the same order of models; `sets` are its S
    test sets; `resampled` (B, M, S) are the AUCs in B resamples of people.
    """

    models: pd.DataFrame
    auc: pd.DataFrame
    matrix: ScoreMatrix
    sets: list[SetRows]
    resampled: NDArray[np.float64]

    @property
    def estimates(self) -> NDArray[np.float64]:
        """The AUCs (M, S) on all test images."""
        table = self.auc.pivot_table(index="model", columns="test_set", values="auc", sort=False)
        return table.loc[self.matrix.models, [one.item.name for one in self.sets]].to_numpy(float)


def metrics_table(
    matrix: ScoreMatrix,
    sets: Sequence[SetRows],
    models: pd.DataFrame,
    thresholds: NDArray[np.float64],
    resampled: NDArray[np.float64],
) -> pd.DataFrame:
    """Metrics of every model on every test set (AUC_COLUMNS), from scores of images or of videos.

    `thresholds` (M,) are those of the accuracy. `resampled` (B, M, S) gives the intervals of the AUCs.
    """
    rows: list[dict[str, str | float]] = []
    for index, model in enumerate(model_columns(models)):
        for one in sets:
            curve = reliability(one.labels, matrix.probabilities[index, one.rows])
            rows.append(
                {
                    **model,
                    **one.item.columns(),
                    "n_real": len(one.reals),
                    "n_fake": len(one.fakes),
                    **binary_metrics(one.labels, matrix.scores[index, one.rows], thresholds[index]),
                    "ece": expected_calibration_error(curve),
                }
            )
    table = pd.DataFrame(rows, columns=AUC_COLUMNS)
    estimates = table["auc"].to_numpy(float).reshape(len(models), len(sets))
    low, high = interval(resampled, estimates)
    return table.assign(auc_low=low.ravel(), auc_high=high.ravel())
