"""Why R²M should work: which way its parts shift features, and whether their shifts add up."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.bench import Bench
from r2m.evaluate.scores import KEPT
from r2m.manifest import REAL
from r2m.merge.passes import parts
from r2m.merge.stages import Chosen
from r2m.merge.tensors import Tensors
from r2m.train.pairs import rows_of

BASE, CORE, RESIDUAL, BOTH = "base", "core", "residual", "core + residual"
OF = "residual:"  # and the specialist's name
MEASURED = ["along", "square", "sum_square", "dot"]

Features = NDArray[np.float64]


def shifts(bench: Bench, variants: Sequence[Chosen], domain: str, generators: Sequence[str]) -> pd.DataFrame:
    """Return how every part of R²M shifts the pooled features of the test images of `domain`.

    The separation direction d is the merge's own, from val images of `generators` (`separation`). The core
    shifts the base's features, the residual those of base and core; so does a specialist's share of it. A row
    an image and part: variant, part, `KEPT`, width (D), along (⟨shift, d⟩), square (‖shift‖²), and where the
    shift is compared with the sum of its parts' shifts, that sum's squared norm (sum_square) and ⟨shift, sum⟩
    (dot). The part `base` is no shift: along is ⟨feature, d⟩.

    Raises:
        R2MError: no test images of the domain, or no val images to find the direction with.
    """
    rows = bench.inputs.select(split="test", domain=domain)
    if rows.empty:
        raise R2MError(f"domain {domain}: no images in the split 'test'")
    val = pd.concat(rows_of(bench.inputs, list(generators), "val"), ignore_index=True)
    found = []
    for variant in variants:
        one = parts(bench.task_vectors, variant.r2m())
        whole = added(one.core, *map(one.residual, bench.task_vectors))
        direction = separation(bench.features(bench.updated(whole), val), val["generator"].tolist())

        def features(update: Tensors) -> Features:
            return bench.features(bench.updated(update), rows).astype(np.float64)

        base, core, merged = features({}), features(one.core), features(whole)
        alone = features({key: tensor - one.core[key] for key, tensor in whole.items()})
        single = {name: features(added(one.core, one.residual(name))) - core for name in bench.task_vectors}
        total = np.sum(list(single.values()), axis=0)
        measured = {
            BASE: measure(base, direction).assign(square=np.nan),
            CORE: measure(core - base, direction),
            RESIDUAL: measure(merged - core, direction, total),
            BOTH: measure(merged - base, direction, (core - base) + (alone - base)),
            **{f"{OF}{name}": measure(shift, direction) for name, shift in single.items()},
        }
        found += [
            rows[KEPT]
            .assign(variant=variant.variant, part=part, width=len(direction))
            .join(values.set_index(rows.index))
            for part, values in measured.items()
        ]
    return pd.concat(found, ignore_index=True)[["variant", "part", *KEPT, "width", *MEASURED]]


def added(first: Tensors, *others: Tensors) -> Tensors:
    """Return the sum of updates of the same tensors."""
    total = {key: tensor.clone() for key, tensor in first.items()}
    for one in others:
        for key, tensor in one.items():
            total[key].add_(tensor)
    return total


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
    """Return MEASURED of n shifts (n, D), a row an image; `total` (n, D) are the sums to compare with."""
    nothing = np.full(len(shift), np.nan)
    return pd.DataFrame(
        {
            "along": shift @ direction,
            "square": np.einsum("nd,nd->n", shift, shift),
            "sum_square": nothing if total is None else np.einsum("nd,nd->n", total, total),
            "dot": nothing if total is None else np.einsum("nd,nd->n", shift, total),
        }
    )
