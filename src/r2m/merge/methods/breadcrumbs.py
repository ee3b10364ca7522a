"""Model breadcrumbs: of every tensor neither the largest entries nor the smallest."""

from __future__ import annotations

from functools import reduce
from operator import iadd
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from r2m.merge.method import Method
from r2m.merge.options import Share
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """Entries of middling magnitude, summed."""

    density: Share = Field(default=0.9, description="share of every tensor's entries that stays")
    gamma: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="share of the largest magnitudes, which are dropped"
    )
    scaling: float = 0.3

    @model_validator(mode="after")
    def _leave_something_to_drop(self) -> Options:
        if self.density + self.gamma > 1 + 1e-9:
            raise ValueError(f"expected density + gamma of at most 1, got {self.density} + {self.gamma}")
        return self


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · Σ of the task vectors without their tails."""
    trimmed = (without_tails(one, options.density, options.gamma) for one in piece.each_task_vector())
    return reduce(iadd, trimmed).mul_(options.scaling)


def without_tails(task_vector: Tensor, density: float, gamma: float) -> Tensor:
    """Set to zero, in place, the int(gamma · n) largest magnitudes and the least ones but int(density · n).

    Equal magnitudes count as rising with their position, so that exactly as many stay where values repeat.
    """
    import torch

    from r2m.merge.selection import kth_of

    flat = task_vector.reshape(-1)
    size, top = flat.numel(), int(gamma * flat.numel())
    bottom = max(0, size - int(density * size) - top)
    if bottom + top >= size:
        return task_vector.zero_()
    magnitudes = flat.abs()
    low, high = kth_of(magnitudes, [bottom, size - top - 1])
    # Masks of floats, made in place, are ten times faster than those of booleans.
    stay = magnitudes.clone().ge_(low).mul_(magnitudes.clone().le_(high))
    if stay.sum(dtype=torch.float64) > size - bottom - top:
        lowest, highest = (magnitudes == low).nonzero(), (magnitudes == high).nonzero()
        stay[lowest[: bottom - int((magnitudes < low).sum())]] = 0.0
        stay[highest[len(highest) - top + int((magnitudes > high).sum()) :]] = 0.0
    return flat.mul_(stay).reshape(task_vector.shape)


METHOD = Method(
    title="Model breadcrumbs",
    citation="Davari and Belilovsky, Model breadcrumbs, ECCV 2024, arXiv 2312.06795",
    options=Options,
    merge=merge,
    grain="tensor",
    is_proportional=True,
)
