"""Heads fitted to the features of a backbone that stays as it is."""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from r2m.models.heads import head_type, named


def fit_head(x: np.ndarray, label: np.ndarray, head: str = "linear") -> dict[str, Tensor]:
    """Return the head of a class-balanced logistic regression of `label` `(n,)` on `x` `(n, D)`.

    The features are standardized for the fit; the returned weights take them as they are.
    """
    x = _seen(x, head)
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000).fit(scaler.transform(x), label)
    weight = model.coef_[0] / scaler.scale_
    bias = model.intercept_[0] - float(weight @ scaler.mean_)
    return _fitted(weight[None], np.array([bias]), head)


def fit_lda_head(x: np.ndarray, label: np.ndarray, head: str = "linear") -> dict[str, Tensor]:
    """Return the head of a linear discriminant analysis of `label` `(n,)` on `x` `(n, D)`, in closed form.

    Both classes count alike; the shared covariance is shrunk as Ledoit and Wolf (2004) do.
    """
    x = _seen(x, head)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(x, label)
    return _fitted(model.coef_, model.intercept_, head)


def _seen(x: np.ndarray, head: str) -> np.ndarray:
    """Return the features in which a head of this type is linear."""
    return head_type(head).seen(torch.tensor(x)).numpy()


def _fitted(weight: np.ndarray, bias: np.ndarray, head: str) -> dict[str, Tensor]:
    rows, offsets = (torch.tensor(values, dtype=torch.float32) for values in (weight, bias))
    return named(head_type(head).fitted(rows, offsets))
