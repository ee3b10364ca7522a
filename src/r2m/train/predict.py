"""Logits of a detector on rows of manifests."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from r2m.models.precision import autocast

if TYPE_CHECKING:
    import pandas as pd

    from r2m.models.backbone import Detector
    from r2m.trunk.inputs import Inputs


def predict(
    detector: "Detector",
    inputs: "Inputs",
    rows: "pd.DataFrame",
    device: torch.device,
    precision: str,
    batch_size: int = 64,
) -> np.ndarray:
    """Return the logits `(n,)` of `rows`, fp32, in their order."""
    detector.eval()
    logits = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = inputs.fetch(rows.iloc[start : start + batch_size]).to(device)
            with autocast(device, precision):
                logits.append(detector(batch).float().cpu().numpy())
    return np.concatenate(logits)


def mean_auc(
    fakes: "pd.DataFrame", fake_logits: np.ndarray, reals: "pd.DataFrame", real_logits: np.ndarray
) -> float:
    """Return the mean over generators of the AUC of its fakes against the reals of the same domains."""
    return float(np.mean(list(generator_aucs(fakes, fake_logits, reals, real_logits).values())))


def generator_aucs(
    fakes: "pd.DataFrame", fake_logits: np.ndarray, reals: "pd.DataFrame", real_logits: np.ndarray
) -> dict[str, float]:
    """Return generator → AUC of its fakes against the reals of the same domains.

    It is NaN where a logit is not finite.
    """
    aucs = {}
    for generator in dict.fromkeys(fakes["generator"]):
        own = (fakes["generator"] == generator).to_numpy()
        same_domain = reals["domain"].isin(fakes.loc[own, "domain"]).to_numpy()
        fake, real = fake_logits[own], real_logits[same_domain]
        logits = np.concatenate([fake, real])
        labels = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
        finite = bool(np.isfinite(logits).all())
        aucs[generator] = float(roc_auc_score(labels, logits)) if finite else math.nan
    return aucs
