"""Heads fitted to the features of a backbone that stays as it is."""

import numpy as np
import pandas as pd
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from r2m.models.backbone import Detector
from r2m.models.precision import autocast
from r2m.trunk.inputs import Inputs


def features(
    detector: Detector,
    inputs: Inputs,
    rows: pd.DataFrame,
    device: torch.device,
    precision: str,
    batch_size: int = 64,
) -> np.ndarray:
    """Return the pooled features `(n, D)` of `rows`, fp32."""
    detector.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = inputs.fetch(rows.iloc[start : start + batch_size]).to(device)
            with autocast(device, precision):
                parts.append(detector.features(batch).float().cpu().numpy())
    return np.concatenate(parts)


def fit_head(x: np.ndarray, label: np.ndarray) -> dict[str, Tensor]:
    """Return the head of a class-balanced logistic regression of `label` `(n,)` on `x` `(n, D)`.

    The features are standardized for the fit; the returned weights take them as they are.
    """
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000).fit(scaler.transform(x), label)
    weight = model.coef_[0] / scaler.scale_
    bias = model.intercept_[0] - float(weight @ scaler.mean_)
    return {
        "head.weight": torch.tensor(weight[None], dtype=torch.float32),
        "head.bias": torch.tensor([bias], dtype=torch.float32),
    }


def fit_lda_head(x: np.ndarray, label: np.ndarray) -> dict[str, Tensor]:
    """Return the head of a linear discriminant analysis of `label` `(n,)` on `x` `(n, D)`, in closed form.

    Both classes count alike; the shared covariance is shrunk as Ledoit and Wolf (2004) do.
    """
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(x, label)
    return {
        "head.weight": torch.tensor(model.coef_, dtype=torch.float32),
        "head.bias": torch.tensor(model.intercept_, dtype=torch.float32),
    }
