"""DARE: drop entries at random, rescale the others, add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Drop and rescale, then task arithmetic."""

    drop: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="probability that an entry is dropped"
    )
    scaling: float = 0.3
    seed: int = 0


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · Σ m_k ∘ τ_k / (1 - drop), with m_k zero with probability `drop`.

    What is dropped of a specialist's tensor depends on the seed, its name and the tensor's, on nothing else;
    of tied tensors the first name counts, so that they stay equal.
    """
    import torch

    from r2m.seeding import derive

    task_vectors = piece.task_vectors()
    total = torch.zeros_like(task_vectors[0])
    for name, task_vector in zip(piece.names, task_vectors, strict=True):
        draws = torch.from_numpy(
            uniform(derive(options.seed, name, piece.first_name), piece.start, piece.stop)
        )
        kept = draws.ge_(options.drop).to(total.device).reshape(piece.shape)
        total.addcmul_(task_vector, kept)
    return total.mul_(options.scaling / (1 - options.drop))


def uniform(key: int, start: int, stop: int) -> NDArray[np.float32]:
    """Return numbers [start, stop) of a stream of uniform ones in [0, 1), a multiple of 2⁻²⁴ each.

    The generator counts instead of iterating, so that a piece of a tensor costs no more than its own length.
    """
    import numpy as np

    philox = np.random.Philox(key=key)
    words = 8  # One step of the counter gives 4 × 64 bits, of which a float32 takes 32.
    philox.advance(start // words)
    return np.random.Generator(philox).random(start % words + stop - start, np.float32)[start % words :]


METHOD = Method(
    title="DARE",
    citation="Yu et al., Language models are super Mario, ICML 2024, arXiv 2311.03099",
    options=Options,
    merge=merge,
    grain="elements",
    is_proportional=True,
)
