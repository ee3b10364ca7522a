"""Task arithmetic: the scaled sum of the task vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Scaled sum of the task vectors."""

    scaling: float = 0.3


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · Σ τ_k: a sum, not a mean."""
    return piece.weighted_sum(options.scaling)


METHOD = Method(
    title="Task arithmetic",
    citation="Ilharco et al., Editing models with task arithmetic, ICLR 2023, arXiv 2212.04089",
    options=Options,
    merge=merge,
    grain="elements",
    is_proportional=True,
)
