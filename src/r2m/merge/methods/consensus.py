"""Consensus: entries of the summed task vectors that matter to several specialists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from r2m.errors import R2MError
from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece


class Options(Section):
    """TALL masks, and how many of them an entry needs."""

    mask_scale: Annotated[float, Field(ge=0)] = Field(
        default=0.4, description="an entry matters to a specialist where |τ_k| > mask_scale · |Σ τ - τ_k|"
    )
    min_tasks: PositiveInt = Field(
        default=2, description="entries that matter to fewer specialists are dropped"
    )
    scaling: float = 0.3


def check(options: Options, count: int) -> None:
    """Raise R2MError where nothing could be left, since no entry matters to so many specialists."""
    if options.min_tasks > count:
        raise R2MError(
            f"consensus: min_tasks is {options.min_tasks}, but there"
            f" {'is' if count == 1 else 'are'} {count} specialist{'s' * (count > 1)}, so that no entry would"
            f" be left; expected at most {count}"
        )


def merge(piece: Piece, options: Options, state: None) -> Tensor:
    """Return scaling · T, T = Σ τ_k, where at least `min_tasks` masks |τ_k| > mask_scale · |T - τ_k| hold.

    The paper's |θ₀ - θ_k| and |θ₀ + T - θ_k| need no base.
    """
    task_vectors = piece.task_vectors()
    total = task_vectors.sum(0)
    rivals = (total - task_vectors).abs_().mul_(options.mask_scale)
    masks = task_vectors.abs().gt_(rivals)
    return total.mul_(masks.sum(0).ge_(options.min_tasks)).mul_(options.scaling)


METHOD = Method(
    title="Consensus (TALL masks)",
    citation="Wang et al., Localizing task information for improved model merging and compression, ICML 2024,"
    " arXiv 2405.07813",
    options=Options,
    merge=merge,
    check=check,
    grain="elements",
    is_proportional=True,
)
