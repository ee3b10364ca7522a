"""How well a detector tells the fakes of each generator from reals."""

import math

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from r2m.session import Session


def generator_aucs(session: Session, fakes: pd.DataFrame, reals: pd.DataFrame) -> dict[str, float]:
    """Return generator → `aucs` of the session's detector on rows of its images."""
    return aucs(fakes, session.predict(fakes), reals, session.predict(reals))


def aucs(
    fakes: pd.DataFrame, fake_logits: np.ndarray, reals: pd.DataFrame, real_logits: np.ndarray
) -> dict[str, float]:
    """Return generator → AUC of its fakes against the reals of the same domains.

    It is NaN where a logit is not finite.
    """
    result = {}
    for generator in dict.fromkeys(fakes["generator"]):
        own = (fakes["generator"] == generator).to_numpy()
        same_domain = reals["domain"].isin(fakes.loc[own, "domain"]).to_numpy()
        fake, real = fake_logits[own], real_logits[same_domain]
        logits = np.concatenate([fake, real])
        labels = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
        finite = bool(np.isfinite(logits).all())
        result[generator] = float(roc_auc_score(labels, logits)) if finite else math.nan
    return result
