"""LiNeS: task arithmetic whose coefficient grows with the depth of the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.merge.kinds import depths
from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream


class Options(Section):
    """The coefficient goes from alpha at the first block to alpha + beta at the last."""

    alpha: float = 0.2
    beta: float = 0.5


def prepare(stream: TensorStream, options: Options) -> dict[str, float]:
    """Return the depth l / (L - 1) of the tensors in block l of L.

    Raises:
        R2MError: no name tells a block, so that all tensors would be scaled alike.
    """
    return depths(stream.source.shapes, "lines")


def merge(piece: Piece, options: Options, state: dict[str, float]) -> Tensor:
    """Return (alpha + beta · l / (L - 1)) · Σ τ_k in block l of L.

    It is alpha · Σ τ_k outside the blocks (stem, final norm, head), and where there is only one of them.
    """
    depth = state.get(piece.key, 0.0)
    return piece.task_vectors().sum(0).mul_(options.alpha + options.beta * depth)


METHOD = Method(
    title="LiNeS",
    citation="Wang et al., LiNeS: post-training layer scaling prevents forgetting and enhances model merging,"
    " ICLR 2025, arXiv 2410.17146",
    options=Options,
    merge=merge,
    prepare=prepare,
    grain="elements",
)
