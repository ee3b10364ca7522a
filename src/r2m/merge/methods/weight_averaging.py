"""Weight averaging: the mean of the specialists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """The mean of the specialists has no options."""


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return (1/K) Σ τ_k."""
    return piece.weighted_sum(1 / len(piece.names))


METHOD = Method(
    title="Weight averaging",
    citation="Wortsman et al., Model soups, ICML 2022, arXiv 2203.05482",
    options=Options,
    merge=merge,
    grain="elements",
)
