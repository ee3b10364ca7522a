"""Which way shifts move features: along a direction of separation or beside it, and whether they add up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from r2m.errors import R2MError
from r2m.evaluate.image_kinds import IMAGE_KINDS, image_kind
from r2m.evaluate.jackknife import interval, leave_one_out
from r2m.evaluate.protocols import EvaluationContext
from r2m.manifest import REAL

BASE, CORE, RESIDUAL, BOTH = "base", "core", "residual", "core + residual"
OF = "residual:"  # and the specialist's name
MEASURED = ["along", "square", "sum_square", "dot"]
COLUMNS = [
    *("size", "share", "share_low", "share_high", "along", "separation", "separation_low", "separation_high"),
    *("error", "cosine", "auc", "along_low", "along_high"),
]

Features = NDArray[np.float64]


def separation(features: NDArray[np.floating], generator: Sequence[str]) -> Features:
    """Return the direction (D,) of length 1 from the mean real feature to the mean fake one.

    Of `features` (n, D), those of every generator count alike in the mean of fakes.

    Raises:
        R2MError: both means are the same.
    """
    means = pd.DataFrame(features.astype(np.float64)).groupby(list(generator)).mean()
    difference = means.drop(index=REAL).mean().to_numpy() - means.loc[REAL].to_numpy()
    length = float(np.linalg.norm(difference))
    if length == 0:
        raise R2MError("features of reals and fakes have the same mean; expected a direction between them")
    return difference / length


def measure(shift: Features, direction: Features, total: Features | None = None) -> pd.DataFrame:
    """Return MEASURED of n shifts (n, D), one row per image; `total` (n, D) are the sums to compare with."""
    nothing = np.full(len(shift), np.nan)
    return pd.DataFrame(
        {
            "along": shift @ direction,
            "square": np.einsum("nd,nd->n", shift, shift),
            "sum_square": nothing if total is None else np.einsum("nd,nd->n", total, total),
            "dot": nothing if total is None else np.einsum("nd,nd->n", shift, total),
        }
    )


def summary(found: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return which way each part shifts images, how far, and whether shifts add up, by kind of image.

    Columns: size (root of the mean ‖shift‖²); share of Σ‖shift‖² that lies along the direction; along (mean
    ⟨shift, d⟩); separation (for fakes, along less that of reals), each of the last three with limits of
    `jackknife.interval` over people; error (root of Σ‖shift − sum‖² / Σ‖shift‖²) and mean cosine of the
    shift beside the sum of its parts' shifts; and auc, of features along the direction once the part is
    added, the mean over generators. NaN where there is none.
    """
    rows: list[dict[str, Any]] = []
    for variant, whole in found.groupby("variant", sort=False):
        origin = whole[whole["part"] == BASE].set_index("image_id")["along"]
        for part, own in whole.groupby("part", sort=False):
            name = str(part).removeprefix(OF) if str(part).startswith(OF) else None
            kinds = np.array([image_kind(str(g), name, context) for g in own["generator"]], dtype=object)
            weights = leave_one_out(own["identity"].tolist())[1]
            reals = _means(own["along"], weights, kinds == REAL)
            placed = own["along"] + (0 if part == BASE else origin.loc[own["image_id"]].to_numpy())
            for kind in [kind for kind in IMAGE_KINDS if kind in kinds]:
                row = _row(own, weights, kinds == kind)
                if kind != REAL:
                    row |= _limits("separation", _means(own["along"], weights, kinds == kind) - reals)
                    if part in (BASE, CORE, BOTH):
                        row["auc"] = _auc(placed[kinds == REAL], placed[kinds == kind], own["generator"])
                rows.append({"variant": variant, "part": part, "images": kind, **row})
    return pd.DataFrame(rows).reindex(columns=["variant", "part", "images", *COLUMNS])


def _row(rows: pd.DataFrame, weights: NDArray[np.float64], chosen: NDArray[np.bool_]) -> dict[str, float]:
    """Return the measures of one part's shift of the chosen images (n,) under weights (n, 1 + P)."""
    row = _limits("along", _means(rows["along"], weights, chosen))
    shown = rows[chosen]
    if shown["square"].isna().all():
        return row
    squares = _means(rows["square"], weights, chosen)
    row["size"] = float(np.sqrt(squares[0]))
    if squares[0] == 0:
        return row
    row |= _limits("share", _means(rows["along"] ** 2, weights, chosen) / squares)
    if shown["dot"].notna().all():
        apart = shown["square"] + shown["sum_square"] - 2 * shown["dot"]
        row["error"] = float(np.sqrt(max(apart.sum(), 0) / shown["square"].sum()))
        row["cosine"] = float((shown["dot"] / np.sqrt(shown["square"] * shown["sum_square"])).mean())
    return row


def _means(values: pd.Series, weights: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the means (1 + P,) of the chosen values; NaN where a weighting leaves none of them."""
    total = weights[chosen].sum(axis=0)
    sums = values.to_numpy(float)[chosen] @ weights[chosen]
    return np.where(total > 0, sums / np.maximum(total, 1), np.nan)


def _limits(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    low, high = interval(values)
    return {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _auc(reals: pd.Series, fakes: pd.Series, generator: pd.Series) -> float:
    """Return the mean over generators of the AUC of its fakes against the reals."""
    aucs = [
        roc_auc_score(np.repeat([0, 1], [len(reals), len(part)]), np.concatenate([reals, part]))
        for _, part in fakes.groupby(generator.loc[fakes.index])
    ]
    return float(np.mean(aucs))
