"""How well a detector tells the fakes of each generator from reals, and where it is best cut."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from r2m.session import Session
from r2m.train.pairs import rows_of


def generator_aucs(session: Session, fakes: pd.DataFrame, reals: pd.DataFrame) -> dict[str, float]:
    """Return generator → `aucs` of the session's detector on rows of its images."""
    return aucs(fakes, session.predict(fakes), reals, session.predict(reals))


def val_threshold(session: Session, generators: Sequence[str]) -> float:
    """Return the `threshold` of the session's detector on the val split; raises R2MError without images."""
    fakes, reals = rows_of(session.inputs, generators, "val")
    return threshold(fakes, session.predict(fakes), reals, session.predict(reals))


def aucs(
    fakes: pd.DataFrame, fake_logits: np.ndarray, reals: pd.DataFrame, real_logits: np.ndarray
) -> dict[str, float]:
    """Return generator → AUC of its fakes against the reals of the same domains.

    It is NaN where a logit is not finite.
    """
    result = {}
    for generator, real, fake in _sets(fakes, fake_logits, reals, real_logits):
        logits = np.concatenate([fake, real])
        labels = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
        finite = bool(np.isfinite(logits).all())
        result[generator] = float(roc_auc_score(labels, logits)) if finite else math.nan
    return result


def threshold(
    fakes: pd.DataFrame, fake_logits: np.ndarray, reals: pd.DataFrame, real_logits: np.ndarray
) -> float:
    """Return the probability from which on an image is best called fake (`best_threshold`)."""
    sets = _sets(fakes, fake_logits.astype(float), reals, real_logits.astype(float))
    return float(expit(best_threshold([(real, fake) for _, real, fake in sets])[0]))


def _sets(
    fakes: pd.DataFrame, fake_logits: np.ndarray, reals: pd.DataFrame, real_logits: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield every generator with the logits of the reals of its fakes' domains, and of its fakes."""
    for generator in dict.fromkeys(fakes["generator"]):
        own = (fakes["generator"] == generator).to_numpy()
        same_domain = reals["domain"].isin(fakes.loc[own, "domain"]).to_numpy()
        yield generator, real_logits[same_domain], fake_logits[own]


def best_threshold(sets: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[float, float]:
    """Threshold with the greatest mean balanced accuracy over several sets, and that mean.

    ``sets`` holds (scores of reals, scores of fakes) per set. The candidates are the points half-way between
    neighbouring scores, and one beyond each end. Of equally good candidates the middle one is taken (the
    lower of two), so that the choice does not lean on a single extreme score.
    """
    reals = np.concatenate([real for real, _ in sets])
    fakes = np.concatenate([fake for _, fake in sets])
    real_weights = np.concatenate([np.full(len(real), 1 / len(real)) for real, _ in sets])
    fake_weights = np.concatenate([np.full(len(fake), 1 / len(fake)) for _, fake in sets])
    values = np.unique(np.concatenate([reals, fakes]))
    candidates = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    specificity = _weight_below(reals, real_weights, candidates)
    sensitivity = len(sets) - _weight_below(fakes, fake_weights, candidates)
    accuracy = (specificity + sensitivity) / (2 * len(sets))
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-12)
    chosen = best[(len(best) - 1) // 2]
    return float(candidates[chosen]), float(accuracy[chosen])


def _weight_below(
    scores: NDArray[np.float64], weights: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Total weight of the scores (N,) that lie strictly below each threshold (M,)."""
    order = np.argsort(scores, kind="stable")
    cumulative = np.concatenate([[0.0], np.cumsum(weights[order])])
    return cumulative[np.searchsorted(scores[order], thresholds, side="left")]
