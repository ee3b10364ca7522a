"""How alike specialists and merges see the same images, Real against Fake: cosine and linear CKA by layer."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.evaluate.cka import kernel, linear_cka
from r2m.evaluate.jackknife import leave_one_out
from r2m.merge.stages import Chosen
from r2m.merge.tensors import Tensors

MEASURES = {
    "cosine": "Cosine",
    "shift_cosine": "Cosine of shifts",
    "cka": "CKA",
    "debiased_cka": "CKA, debiased",
}
BASE, SPECIALIST, MERGE = "base", "specialist", "merge"
EVERYONE = ""  # what `left_out` is where nobody is
KEYS = ["specialist", "kind", "other", "layer", "generator"]

Model = tuple[str, str]
Layers = Mapping[str, NDArray[np.floating]]


def similarities(bench: Bench, variants: Sequence[Chosen], domain: str, images: int) -> pd.DataFrame:
    """Return how alike every specialist is to the base, the other specialists and the merges.

    They see the same test images of `domain`, set by set, of each at most `images`, evenly spaced. Columns:
    specialist, `kind` and name of the `other` model, layer, generator (`real` for reals), left_out (the
    person whose images are left out, `EVERYONE` for none), number of images, and MEASURES.

    Raises:
        R2MError: no test images of the domain.
    """
    rows = bench.inputs.select(split="test", domain=domain)
    if rows.empty:
        raise R2MError(f"domain {domain}: no images in the split 'test'")
    rows = pd.concat([spaced(part, images) for _, part in rows.groupby("set", sort=False)])
    layers = {model: bench.layer_features(tensors, rows) for model, tensors in _models(bench, variants)}
    generator = rows["generator"].to_numpy(object)
    parts = []
    for name in dict.fromkeys(generator):
        places = np.flatnonzero(generator == name)
        own = {model: {layer: x[places] for layer, x in one.items()} for model, one in layers.items()}
        found = compared(own, rows["identity"].iloc[places].tolist())
        parts.append(found.assign(generator=name, images=len(places)))
    columns = [*KEYS, "left_out", "images", *MEASURES]
    return pd.concat(parts, ignore_index=True)[columns]


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


def _models(bench: Bench, variants: Sequence[Chosen]) -> Iterator[tuple[Model, Tensors]]:
    """Yield (kind, name) and the tensors of the base, of every specialist and of every merge."""
    yield (BASE, BASE), bench.updated({})
    for name, task_vector in bench.task_vectors.items():
        yield (SPECIALIST, name), bench.updated(task_vector)
    for one in variants:
        yield (MERGE, one.variant), bench.merged(one.method, one.options)


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means (W,) of values (n,) under weights (n, W)."""
    return values @ weights / weights.sum(axis=0)
