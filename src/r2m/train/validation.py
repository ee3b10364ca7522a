"""How well a detector tells the fakes of each generator from reals, and how it is calibrated."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from r2m.models.decision import Decision
from r2m.session import Session
from r2m.train.deciding import decide
from r2m.train.rows import rows_of


def val_decision(session: Session, generators: Sequence[str]) -> Decision:
    """Return the `decision` of the session's detector on the val split; raises R2MError without images."""
    fakes, reals = rows_of(session.inputs, generators, "val")
    return decision(fakes, session.predict(fakes), reals, session.predict(reals))


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


def decision(
    fakes: pd.DataFrame, fake_logits: np.ndarray, reals: pd.DataFrame, real_logits: np.ndarray
) -> Decision:
    """Return how logits become probabilities and decisions, every generator's fakes beside their reals."""
    sets = _sets(fakes, fake_logits.astype(float), reals, real_logits.astype(float))
    return decide([(real, fake) for _, real, fake in sets])


def _sets(
    fakes: pd.DataFrame, fake_logits: np.ndarray, reals: pd.DataFrame, real_logits: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield every generator with the logits of the reals of its fakes' domains, and of its fakes."""
    for generator in dict.fromkeys(fakes["generator"]):
        is_own = (fakes["generator"] == generator).to_numpy()
        same_domain = reals["domain"].isin(fakes.loc[is_own, "domain"]).to_numpy()
        yield generator, real_logits[same_domain], fake_logits[is_own]
