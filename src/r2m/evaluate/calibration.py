"""How far probabilities are from frequencies: reliability curves and the expected calibration error."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from r2m.evaluate.protocols import MODEL_KEYS, PROTOCOLS, model_columns
from r2m.evaluate.score_matrix import ScoreMatrix, SetRows

BINS = 15
RELIABILITY_COLUMNS = [
    *(*MODEL_KEYS, "protocol", "calibrated", "bin", "low", "high", "n", "weight", "probability", "fakes")
]


def reliability(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, bins: int = BINS
) -> pd.DataFrame:
    """Reliability curve of probabilities (N,) of label 1, in bins of equal mass.

    One row per bin: `bin` (from 1), the least and greatest probability in it (`low`, `high`), the number of
    images `n` and their `weight`, and weighted the mean `probability` and the share of `fakes`. `weights`
    (N,) are 1 by default. Equal probabilities share a bin, the one of their middle rank, so that the order of
    the images does not matter; a bin can be missing for that.

    Equal mass, and not equal width, since few images lie between the extremes: Nguyen and O'Connor, EMNLP
    2015; Roelofs et al., AISTATS 2022, who find its error less biased.
    """
    labels = np.asarray(labels, dtype=np.float64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    place = bins_of(probabilities, weights, bins)
    rows = pd.DataFrame({"label": labels, "probability": probabilities, "weight": weights})
    rows[["label_mass", "probability_mass"]] = rows[["label", "probability"]].mul(rows["weight"], axis=0)
    groups = rows.groupby(place, sort=True)
    weight = groups["weight"].sum()
    curve = pd.DataFrame(
        {
            "bin": weight.index + 1,
            "low": groups["probability"].min(),
            "high": groups["probability"].max(),
            "n": groups.size(),
            "weight": weight,
            "probability": groups["probability_mass"].sum() / weight,
            "fakes": groups["label_mass"].sum() / weight,
        }
    )
    return curve.reset_index(drop=True)


def bins_of(
    probabilities: NDArray[np.float64], weights: NDArray[np.float64], bins: int = BINS
) -> NDArray[np.int64]:
    """Return the bin (N,), from 0, of probabilities (N,) of `weights` (N,), as `reliability` makes them."""
    _, tie = np.unique(probabilities, return_inverse=True)
    mass = np.bincount(tie, weights=weights)
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    return np.floor(middle * bins).astype(np.int64)[tie]


def expected_calibration_error(curve: pd.DataFrame) -> float:
    """Mean over images, as they weigh, of the distance between their bin's probability and share of fakes.

    `curve` is that of `reliability`. Source: Naeini, Cooper and Hauskrecht, AAAI 2015.
    """
    gap = (curve["probability"] - curve["fakes"]).abs()
    return float((gap * curve["weight"]).sum() / curve["weight"].sum())


def reliability_table(
    matrix: ScoreMatrix, sets: Sequence[SetRows], models: pd.DataFrame, bins: int = BINS
) -> pd.DataFrame:
    """Reliability curves of every model, the test sets of a protocol pooled (RELIABILITY_COLUMNS).

    One before calibration, the sigmoid of logits, and one after (`calibrated`). An image weighs the number of
    test sets that it is in, so that each keeps its shares of both classes.
    """
    parts = []
    labels = matrix.units["label"].to_numpy()
    pooled = pooled_rows(sets)
    probabilities = {False: expit(matrix.scores), True: matrix.probabilities}
    for index, model in enumerate(model_columns(models)):
        for protocol, (rows, weights) in pooled.items():
            for is_calibrated, values in probabilities.items():
                curve = reliability(labels[rows], values[index, rows], weights, bins)
                parts.append(curve.assign(**model, protocol=protocol, calibrated=is_calibrated))
    return pd.concat(parts, ignore_index=True)[RELIABILITY_COLUMNS]


def pooled_rows(sets: Sequence[SetRows]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return protocol → places of the images in its test sets, and in how many of them each is."""
    pooled = {}
    for protocol in PROTOCOLS:
        within = [test_set.rows for test_set in sets if test_set.item.protocol == protocol]
        if within:
            pooled[protocol] = np.unique(np.concatenate(within), return_counts=True)
    return pooled
