"""Parts of a tensor that hold whole rows: the weights of one output each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r2m.merge.stream import Piece

# Entries of all specialists in one part; 2²⁰ float32 stay in the processor's cache.
ENTRIES = 2**20


def row_length(shape: tuple[int, ...]) -> int:
    """Return the length of the rows of a tensor (out, …): in, or in·kh·kw; a vector is one row."""
    return prod(shape[1:]) if len(shape) > 1 else prod(shape)


def row_parts(piece: Piece) -> Iterator[Piece]:
    """Yield a whole tensor in flat parts of whole rows, the fewer rows the more specialists there are."""
    length = row_length(piece.tensor_shape)
    step = max(1, ENTRIES // (len(piece.names) * length)) * length
    for start in range(piece.start, piece.stop, step):
        yield replace(piece, start=start, stop=min(start + step, piece.stop))
