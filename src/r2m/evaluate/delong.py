"""DeLong's test of the difference between AUCs on the same images, and Holm's correction."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from r2m.evaluate.bootstrap import interval
from r2m.evaluate.evaluation import Evaluation
from r2m.evaluate.protocols import MODEL_KEYS, SET_COLUMNS, model_columns

ALPHA = 0.05
COMPARISON_COLUMNS = [
    *("reference", *MODEL_KEYS, *SET_COLUMNS),
    *("auc_reference", "auc", "difference", "difference_low", "difference_high"),
    *("se", "z", "p", "p_holm", "significance"),
]


def auc_covariance(
    real: NDArray[np.float64], fake: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUCs (M,) of M models with scores (M, R) of reals and (M, F) of fakes, and their covariance (M, M).

    The structural components come from midranks in O((R + F) log(R + F)). The covariance is NaN with fewer
    than two reals or fakes.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44(3), 1988; by midranks: Sun and Xu, IEEE Signal
    Processing Letters 21(11), 2014.
    """
    count = fake.shape[1]
    ranks = rankdata(np.concatenate([fake, real], axis=1), axis=1)
    of_fakes = (ranks[:, :count] - rankdata(fake, axis=1)) / real.shape[1]
    of_reals = 1 - (ranks[:, count:] - rankdata(real, axis=1)) / count
    covariance = _covariance_of_mean(of_fakes) + _covariance_of_mean(of_reals)
    return of_fakes.mean(axis=1), covariance


def _covariance_of_mean(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance (M, M) of the row means of `components` (M, N)."""
    count = components.shape[1]
    if count < 2:
        return np.full((len(components),) * 2, np.nan)
    centred = components - components.mean(axis=1, keepdims=True)
    return centred @ centred.T / (count * (count - 1))


def delong_test(
    aucs: NDArray[np.float64], covariance: NDArray[np.float64], reference: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Standard error, z and two-sided p (M,) of AUC of the reference minus AUC of each model.

    A difference without variance is certain: p is 1 where it is zero, and else 0.
    """
    variances = np.diag(covariance)
    variance = variances[reference] + variances - 2 * covariance[reference]
    error = np.sqrt(np.maximum(variance, 0))  # rounding can leave a negative rest
    difference = aucs[reference] - aucs
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(difference == 0, 0.0, difference / error)
    z = np.where(np.isnan(error), np.nan, z)
    return error, z, 2 * norm.sf(np.abs(z))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p values (K,) of K tests; NaN stays NaN and does not count.

    Source: Holm, Scandinavian Journal of Statistics 6(2), 1979.
    """
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


def comparisons(evaluation: Evaluation, reference: str | None) -> pd.DataFrame:
    """Test the reference against every other model on every test set (COMPARISON_COLUMNS).

    Holm's correction is over all rows. `significance` says whether the reference is `better` or `worse` than
    the model at ALPHA after the correction, else `no`. DeLong's test takes images for independent; the
    interval of the difference beside it, from the resamples of people, does not. Without a reference there
    are no rows.
    """
    rows: list[dict[str, str | float]] = []
    matrix = evaluation.matrix
    if reference is not None:
        own = matrix.models.index(reference)
        for place, test_set in enumerate(evaluation.sets):
            aucs, covariance = auc_covariance(
                matrix.scores[:, test_set.reals], matrix.scores[:, test_set.fakes]
            )
            error, z, p = delong_test(aucs, covariance, own)
            difference, drawn = aucs[own] - aucs, evaluation.resampled[:, :, place]
            low, high = interval(drawn[:, [own]] - drawn, difference)
            for index, model in enumerate(model_columns(evaluation.models)):
                if index == own:
                    continue
                rows.append(
                    {
                        "reference": reference,
                        **model,
                        **test_set.item.columns(),
                        "auc_reference": aucs[own],
                        "auc": aucs[index],
                        "difference": difference[index],
                        "difference_low": low[index],
                        "difference_high": high[index],
                        "se": error[index],
                        "z": z[index],
                        "p": p[index],
                    }
                )
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    better = np.where(table["difference"].to_numpy(float) > 0, "better", "worse")
    table["significance"] = np.where(table["p_holm"].to_numpy(float) < ALPHA, better, "no")
    return table
