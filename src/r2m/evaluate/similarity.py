"""How alike models see the same images, Real against Fake: cosine and linear CKA by layer."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.evaluate.cka import kernel, linear_cka
from r2m.evaluate.image_kinds import IMAGE_KINDS, image_kind
from r2m.evaluate.jackknife import interval, leave_one_out
from r2m.evaluate.protocols import EvaluationContext
from r2m.manifest import REAL
from r2m.session import POOLED

MEASURES = {
    "cosine": "Cosine",
    "shift_cosine": "Cosine of shifts",
    "cka": "CKA",
    "debiased_cka": "CKA, debiased",
}
BASE, SPECIALIST, MERGE = "base", "specialist", "merge"
EVERYONE = ""  # what `left_out` is where nobody is
KEYS = ["specialist", "kind", "other", "layer", "generator"]
OTHERS, MEAN = "other specialists", "mean"
FAKE = "fake_"

Model = tuple[str, str]
Layers = Mapping[str, NDArray[np.floating]]


def spaced(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return at most `count` of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def compared(layers: Mapping[Model, Layers], people: Sequence[str]) -> pd.DataFrame:
    """Return MEASURES of every specialist beside every other model on one set of n images.

    `layers` holds features (n, D) by layer of every (kind, name), the base among them; `people` (n,) are on
    the images. A row for everyone, and one without each person.
    """
    names, weights = leave_one_out(people)
    (base,) = (one for (kind, _), one in layers.items() if kind == BASE)
    parts = []
    for layer, origin in base.items():
        features = {model: one[layer] for model, one in layers.items()}
        kernels = {model: kernel(x, weights) for model, x in features.items()}
        for one, other in combinations(features, 2):
            if SPECIALIST not in (one[0], other[0]):
                continue
            cka, debiased = linear_cka(kernels[one], kernels[other], weights)
            values = {
                "cosine": _mean(cosines(features[one], features[other]), weights),
                "shift_cosine": _mean(cosines(features[one] - origin, features[other] - origin), weights),
                "cka": cka,
                "debiased_cka": debiased,
            }
            for (kind, specialist), second in ((one, other), (other, one)):
                if kind == SPECIALIST:
                    keys = {"specialist": specialist, "kind": second[0], "other": second[1], "layer": layer}
                    parts.append(pd.DataFrame({**keys, "left_out": [EVERYONE, *names], **values}))
    return pd.concat(parts, ignore_index=True)


def cosines(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine (n,) of every pair of rows of (n, D); NaN where one is zero."""
    x, y = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.where(lengths > 0, (x * y).sum(axis=1) / np.where(lengths > 0, lengths, 1), np.nan)


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means (W,) of values (n,) under weights (n, W)."""
    return values @ weights / weights.sum(axis=0)


def summary(found: pd.DataFrame, context: EvaluationContext) -> pd.DataFrame:
    """Return similarities by kind of image, and what Real has more than each kind of fakes.

    Rows: every compared model (`kind`, `other`; the other specialists together are one) and measure, layer
    by layer for the mean over specialists (`specialist` is `MEAN`), and for each specialist of the pooled
    features. Columns: `real`, `own`, `foreign` and `unseen` with their limits (`_low`, `_high`), each the
    mean over its generators; the differences Real − Fake (`real_own` …) with theirs; and `fake_GENERATOR`.
    The limits are of `jackknife.interval`, over people.
    """
    found = found.assign(other=found["other"].where(found["kind"] != SPECIALIST, OTHERS))
    rows: list[dict[str, Any]] = []
    for measure in MEASURES:
        # A person whom a set does not show is left out of it by leaving it as it is; inf stands for what a
        # set does show, but has no value of.
        shown = found.assign(value=found[measure].fillna(np.inf))
        table = shown.pivot_table("value", KEYS, "left_out", sort=False)
        table = table.T.fillna(table[EVERYONE]).T.replace(np.inf, np.nan).dropna(subset=[EVERYONE])
        table = table[[EVERYONE, *table.columns.drop(EVERYONE)]]
        for (kind, other, layer), part in table.groupby(["kind", "other", "layer"], sort=False):
            where = {"kind": kind, "other": other, "layer": layer, "measure": measure}
            single = {
                str(name): _by_kind(one, str(name), context)
                for name, one in part.groupby("specialist", sort=False)
            }
            images = list(dict.fromkeys(image for one in single.values() for image in one))
            mean = {
                image: np.mean([one[image] for one in single.values() if image in one], axis=0)
                for image in images
            }
            described = {MEAN: mean, **(single if layer == POOLED else {})}
            rows += [{**where, "specialist": name, **_row(values)} for name, values in described.items()]
    frame = pd.DataFrame(rows)
    # Merges first, each with all of its measures.
    place = frame["kind"].map([MERGE, SPECIALIST, BASE].index)
    order = pd.DataFrame({"kind": place, "other": frame["other"].factorize()[0]})
    return frame.loc[order.sort_values(["kind", "other"], kind="stable").index].reset_index(drop=True)


def _by_kind(
    table: pd.DataFrame, specialist: str, context: EvaluationContext
) -> dict[str, NDArray[np.float64]]:
    """Return the values (1 + P,) of one specialist beside one model, by the summary's columns."""
    values = table.groupby("generator", sort=False).mean()
    kinds = [image_kind(str(name), specialist, context) for name in values.index]
    found = {str(kind): one.to_numpy() for kind, one in values.groupby(kinds).mean().T.items()}
    means = {kind: found[kind] for kind in IMAGE_KINDS if kind in found}
    differences = {f"real_{kind}": means[REAL] - one for kind, one in means.items() if kind != REAL}
    fakes = {f"{FAKE}{name}": one.to_numpy() for name, one in values.T.items() if name != REAL}
    return {**means, **differences, **fakes}


def _row(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return estimates of one row of the summary, and the limits of all but single generators."""
    row: dict[str, float] = {}
    for name, one in values.items():
        row[name] = float(one[0])
        if not name.startswith(FAKE):
            row[f"{name}_low"], row[f"{name}_high"] = map(float, interval(one))
    return row
