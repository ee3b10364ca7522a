"""The update of a merge as LoRA factors: every matrix by a product of low rank, and what that loses.

ΔW ≈ B A by the truncated singular value decomposition, which is nearest in the Frobenius norm (Eckart and
Young, 1936); B and A (Hu et al., LoRA, arXiv 2106.09685, equation 3) share the singular values evenly.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from r2m.merge.diagnostics import is_finite
from r2m.merge.kinds import Kind, kind
from r2m.merge.linalg import exact_right_vectors, leading_right_vectors
from r2m.merge.merging import Sink
from r2m.merge.tensors import Described, square

# Layers that look rows up in their weight rather than multiply by it, as usual names tell.
_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe)\.weight$")


class Form(StrEnum):
    """How PEFT applies factors to the weight of a layer."""

    LINEAR = "linear"
    CONVOLUTION = "convolution"
    EMBEDDING = "embedding"


def form(name: str, shape: tuple[int, ...]) -> Form | None:
    """Return how an adapter holds the update of a tensor; None if it cannot.

    It holds those of weights of layers alone: of matrices, and of convolutions of more than one channel (with
    one, they are depthwise, and PEFT takes no dense update of those).
    """
    if not name.endswith(".weight"):
        return None
    match kind(name, shape):
        case Kind.MATRIX:
            return Form.EMBEDDING if _EMBEDDING.search(name) else Form.LINEAR
        case Kind.CONVOLUTION if shape[1] > 1:
            return Form.CONVOLUTION
    return None


@dataclass(frozen=True)
class Factors:
    """An update of low rank r in the shapes of PEFT, in float32.

    `a` and `b` are (r, in) and (out, r) of a linear layer, (r, in, kh, kw) and (out, r, 1, 1) of a
    convolution, (r, rows) and (width, r) of an embedding. `norm` is ‖ΔW‖, `error` ‖ΔW − B A‖.
    """

    form: Form
    a: Tensor
    b: Tensor
    norm: float
    error: float

    @property
    def rank(self) -> int:
        """The rank r."""
        return len(self.a)


def factorized(update: Tensor, rank: int, how: Form) -> Factors:
    """Return the factors of the update of one weight, of `rank` or of its lesser dimension.

    `update` is on the CPU. The approximation is the projection on leading singular vectors. At full rank it
    is the update to float32's precision.
    """
    matrix = update.flatten(1).float()
    m, n = matrix.shape
    rank = min(rank, m, n)
    leading = (exact_right_vectors if rank == min(m, n) else leading_right_vectors)(matrix, rank)
    short = leading.vectors.double()
    long = (matrix.double() if m >= n else matrix.double().T) @ short
    roots = torch.linalg.vector_norm(long, dim=0).sqrt()
    long, short = long / roots.where(roots > 0, 1.0), short * roots
    left, right = (long, short) if m >= n else (short, long)
    left, right = left.float(), right.float()
    error = math.sqrt(square(matrix - left @ right.T))
    shapes = {
        Form.LINEAR: lambda: (right.T, left),
        Form.CONVOLUTION: lambda: (right.T.reshape(rank, *update.shape[1:]), left[:, :, None, None]),
        Form.EMBEDDING: lambda: (left.T, right),
    }
    a, b = (factor.contiguous() for factor in shapes[how]())
    return Factors(how, a, b, math.sqrt(square(matrix)), error)


class FactoringSink:
    """Passes merged tensors on to another sink, and makes factors of their updates before they are rounded.

    The other sink is one that wants tensors in float32 or float64, and rounds them itself. One thread writes
    a tensor, its pieces in order. `base` returns entries of θ₀, and `entries` are its shapes. Factors have
    the `rank` at most.
    """

    def __init__(
        self,
        sink: Sink,
        base: Callable[[str, int, int], Tensor],
        entries: Mapping[str, Described],
        rank: int,
    ) -> None:
        self.factors: dict[str, Factors] = {}
        self._sink, self._base, self._entries = sink, base, entries
        self.rank = rank
        self._pending: dict[str, Tensor] = {}
        self._left_out: dict[str, float] = {}
        self._nonfinite: list[str] = []

    def dtype(self, key: str) -> torch.dtype:
        """Return the type that merged tensors are taken in."""
        return self._sink.dtype(key)

    def write(self, key: str, start: int, tensor: Tensor) -> None:
        """Write entries from `start` on, (n,); factors are made once the last of a tensor is there.

        Raises:
            R2MError: what the other sink raises.
        """
        self._sink.write(key, start, tensor)
        stop, shape = start + len(tensor), tuple(self._entries[key].shape)
        change = tensor.float() - self._base(key, start, stop).float()
        how = form(key, shape)
        if how is None:
            self._left_out[key] = self._left_out.get(key, 0.0) + square(change)
            return
        size = math.prod(shape)
        if len(change) < size:
            if start == 0:
                self._pending[key] = torch.empty(size)
            self._pending[key][start:stop] = change
            change = self._pending[key]
        if stop == size:
            self._pending.pop(key, None)
            self._factorize(key, change.reshape(shape), how)

    def _factorize(self, key: str, update: Tensor, how: Form) -> None:
        if not is_finite(update):
            self._nonfinite.append(key)
        elif update.any():
            self.factors[key] = factorized(update, self.rank, how)

    def report(self) -> dict[str, Any]:
        """Return ranks and errors of all tensors, and what of the update's norm is in none of them.

        Relative errors are ‖ΔW − B A‖ / ‖ΔW‖: of each tensor, of all with factors together, and of the whole
        update, where tensors without factors count as lost. Updates that are not finite count nowhere.
        """
        lost = {key: one for key, one in sorted(self._left_out.items()) if one > 0 and math.isfinite(one)}
        held = math.fsum(one.norm**2 for one in self.factors.values())
        error = math.fsum(one.error**2 for one in self.factors.values())
        rest = math.fsum(lost.values())
        nonfinite = [key for key, one in self._left_out.items() if not math.isfinite(one)]
        return {
            "rank": self.rank,
            "tensors": {
                key: {"rank": one.rank, "norm": one.norm, "relative_error": one.error / one.norm}
                for key, one in sorted(self.factors.items())
            },
            "relative_error_of_matrices": _ratio(error, held),
            "left_out": {key: math.sqrt(one) for key, one in lost.items()},
            "share_left_out": _ratio(rest, held + rest),
            "relative_error": _ratio(error + rest, held + rest),
            "nonfinite": sorted([*nonfinite, *self._nonfinite]),
        }


def _ratio(square: float, whole: float) -> float:
    """Return the root of a ratio of squared norms; 0 where there is nothing."""
    return math.sqrt(square / whole) if whole > 0 else 0.0
