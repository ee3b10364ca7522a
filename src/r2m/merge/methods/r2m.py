"""Real-aware residual merging, R²M (arXiv 2509.24367); the equations stand in `r2m.merge.real_aware`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from r2m.merge.kinds import MATRICES_AND_CONVOLUTIONS
from r2m.merge.method import Method
from r2m.merge.options import R2M

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.passes import State
    from r2m.merge.stream import Piece, TensorStream


def prepare(stream: TensorStream, options: R2M) -> State:
    """Find the Real parts, the truncated residuals and λ."""
    from r2m.merge import passes

    return passes.prepare(stream, options)


def merge(piece: Piece, options: R2M, state: State) -> Tensor:
    """Return τ_core + λ F̃."""
    from r2m.merge import passes

    return passes.update(piece.key, state)


def describe(state: State) -> dict[str, Any]:
    """Report ranks, energies, norms and cosines."""
    return state.report


def sweep(stream: TensorStream, candidates: Sequence[R2M]) -> Iterator[tuple[R2M, dict[str, Tensor]]]:
    """Yield the updates of candidates that share decompositions."""
    from r2m.merge import passes

    return passes.sweep(stream, candidates)


METHOD = Method(
    title="Real-aware residual merging (R²M)",
    citation="Real-Aware Residual Model Merging for Deepfake Detection, arXiv 2509.24367",
    options=R2M,
    prepare=prepare,
    merge=merge,
    describe=describe,
    sweep=sweep,
    kinds=MATRICES_AND_CONVOLUTIONS,
)
