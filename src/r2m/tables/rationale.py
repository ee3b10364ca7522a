"""Table of the shifts of features by the parts of R²M."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from r2m.errors import R2MError
from r2m.evaluate.bootstrap import LEVEL
from r2m.evaluate.image_kinds import IMAGE_KINDS, image_kind
from r2m.evaluate.jackknife import interval, leave_one_out
from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments.rationale import BASE, BOTH, CORE, MEASURED, OF
from r2m.manifest import REAL
from r2m.report.table import Table as Rendered

TITLES = {
    "size": "Size",
    "share": "Share along",
    "share_low": "from",
    "share_high": "to",
    "along": "Mean along",
    "separation": "Separation",
    "separation_low": "from",
    "separation_high": "to",
    "error": "Error of the sum",
    "cosine": "Cosine with the sum",
    "auc": "AUC",
}
COLUMNS = [*TITLES, "along_low", "along_high"]


def summary(found: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return which way each part shifts images, how far, and whether shifts add up; a row a kind of image.

    Columns: size (root of the mean ‖shift‖²); share of Σ‖shift‖² that lies along the direction; along (mean
    ⟨shift, d⟩); separation (for fakes, along less that of reals), each of the last three with limits of
    `jackknife.interval` over people; error (root of Σ‖shift − sum‖² / Σ‖shift‖²) and mean cosine of the
    shift beside the sum of its parts' shifts; and auc, of features along the direction once the part is
    added, the mean over generators. NaN where there is none.
    """
    rows: list[dict[str, Any]] = []
    for variant, whole in found.groupby("variant", sort=False):
        origin = whole[whole["part"] == BASE].set_index("image_id")["along"]
        for part, one in whole.groupby("part", sort=False):
            name = str(part).removeprefix(OF) if str(part).startswith(OF) else None
            kinds = np.array([image_kind(str(g), name, context) for g in one["generator"]], dtype=object)
            weights = leave_one_out(one["identity"].tolist())[1]
            reals = _means(one["along"], weights, kinds == REAL)
            placed = one["along"] + (0 if part == BASE else origin.loc[one["image_id"]].to_numpy())
            for kind in [kind for kind in IMAGE_KINDS if kind in kinds]:
                row = _row(one, weights, kinds == kind)
                if kind != REAL:
                    row |= _limits("separation", _means(one["along"], weights, kinds == kind) - reals)
                    if part in (BASE, CORE, BOTH):
                        row["auc"] = _auc(placed[kinds == REAL], placed[kinds == kind], one["generator"])
                rows.append({"variant": variant, "part": part, "images": kind, **row})
    return pd.DataFrame(rows).reindex(columns=["variant", "part", "images", *COLUMNS])


def _row(one: pd.DataFrame, weights: NDArray[np.float64], chosen: NDArray[np.bool_]) -> dict[str, float]:
    """Return the measures of one part's shift of the chosen images (n,) under weights (n, 1 + P)."""
    row = _limits("along", _means(one["along"], weights, chosen))
    shown = one[chosen]
    if shown["square"].isna().all():
        return row
    squares = _means(one["square"], weights, chosen)
    row["size"] = float(np.sqrt(squares[0]))
    if squares[0] == 0:
        return row
    row |= _limits("share", _means(one["along"] ** 2, weights, chosen) / squares)
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


def table(source: Path, context: EvaluationContext) -> Rendered:
    """Return the table of the shifts in `source`: a row a variant, part and kind of image.

    Raises:
        R2MError: not the output of `r2m rationale`.
    """
    found = read(source)
    frame = summary(found, context)
    frame.insert(0, "merge", frame["variant"].map(context.variant_label))
    frame.insert(3, "shift", [part_label(part, context) for part in frame["part"]])
    frame.insert(5, "kind", frame["images"].map(IMAGE_KINDS))
    chance = 1 / float(found["width"].iloc[0])
    return Rendered(
        frame,
        {"merge": "Merge", "shift": "Shift by", "kind": "Images", **TITLES},
        caption=(
            "Shifts of the pooled features of test images by the parts of R²M. The direction is that from the"
            " mean real to the mean fake feature of the merge, on val images. Share along: of the squared"
            f" norm; the rest lies off it ({chance:.4f} would lie along a random direction)."
            " Separation: how much further fakes are shifted along it than reals. Error and cosine: the shift"
            " by a sum of parts beside the sum of their shifts. AUC: of the features along the direction,"
            f" that part added. {100 * LEVEL:g} % intervals by the jackknife over people."
        ),
        label="rationale",
        section="variant",
        digits={"size": 2, **{key: 2 for key in TITLES if key.startswith(("along", "separation"))}},
    )


def part_label(part: str, context: EvaluationContext) -> str:
    """Name of a part as a reader sees it."""
    if part.startswith(OF):
        return f"residual of {context.generator_label(part.removeprefix(OF))}"
    return {BASE: "none (base)"}.get(part, part)


def read(path: Path) -> pd.DataFrame:
    """Read what `r2m rationale` wrote.

    Raises:
        R2MError: another file, or one without rows.
    """
    wanted = ["variant", "part", "image_id", "generator", "identity", "width", *MEASURED]
    try:
        found = pd.read_parquet(path, columns=wanted)
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: expected the columns {', '.join(wanted)} ({error})") from error
    if found.empty:
        raise R2MError(f"{path}: expected a row an image and part, got none")
    return found
