"""Weights per specialist: a merge with weights sees w_k τ_k in place of the task vectors τ_k."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

from r2m.errors import R2MError
from r2m.options import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.method import Method
    from r2m.merge.stream import Source


def factors(method: Method, weights: Mapping[str, float], names: Collection[str]) -> dict[str, float] | None:
    """Return what the task vectors of the specialists `names` are multiplied by; None: equal weights.

    `weights` are relative: divided by their mean over all specialists, so that a weighted mean of the θ_k is
    the mean of what is multiplied by them, and `scaling` means the same with weights as without. Who has none
    counts as 1.

    Raises:
        R2MError: the method takes no weights, or a weight of nobody, below zero or not finite, or all zero.
    """
    if not weights:
        return None
    if method.unweighted:
        raise R2MError(f"weights: {method.name} takes none, {method.unweighted}")
    for name, weight in weights.items():
        if name not in names:
            raise R2MError(f"weights: no specialist {name!r}{nearest(name, names)}")
        if not 0 <= weight < math.inf:
            raise R2MError(f"weights: {name}: expected a finite number of at least 0, got {weight}")
    given = {name: float(weights.get(name, 1.0)) for name in names}
    greatest = max(given.values())
    if greatest == 0:
        raise R2MError("weights: all are 0; expected one above 0")
    if min(given.values()) == greatest:
        return None
    # Before they are summed up, since numbers near the greatest float would overflow.
    shares = {name: weight / greatest for name, weight in given.items()}
    mean = math.fsum(shares.values()) / len(shares)
    return {name: share / mean for name, share in shares.items()}


class Weighted:
    """A source whose task vectors are multiplied by a factor each, in the order of its names."""

    def __init__(self, source: Source, factors: Sequence[float]) -> None:
        self.names = source.names
        self.shapes = source.shapes
        self.unchanged = source.unchanged
        self._source = source
        self._factors = factors

    def base(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀."""
        return self._source.base(key, start, stop)

    def task_vector(self, index: int, key: str, start: int, stop: int) -> Tensor:
        """Return entries of one w_k τ_k."""
        return self._source.task_vector(index, key, start, stop).mul_(self._factors[index])

    def task_vectors(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of all w_k τ_k."""
        task_vectors = self._source.task_vectors(key, start, stop)
        return task_vectors * task_vectors.new_tensor(self._factors)[:, None]

    def statistic(self, index: int, key: str, start: int, stop: int) -> Tensor | None:
        """Return a specialist's statistics of one tensor, as they are."""
        return self._source.statistic(index, key, start, stop)

    def first_name(self, key: str) -> str:
        """Return the first name of tensors that are the same in all models."""
        return self._source.first_name(key)

    def scratch(self) -> MutableMapping[str, Tensor]:
        """Return an empty place for intermediate tensors."""
        return self._source.scratch()
