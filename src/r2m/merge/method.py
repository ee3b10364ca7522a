"""What a merging method declares about itself; without torch, so that params.yaml is read quickly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from r2m.errors import R2MError
from r2m.merge.kinds import MATRICES, Grain, Kind
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

Others = Literal["alike", "mean", "scaled_mean", "base"]


@dataclass(frozen=True)
class Method:
    """A merging method: pure functions on pieces of tensors, and how tensors are brought to them.

    `merge(piece, options, state)` returns the update of one piece, θ* = θ₀ + update, in float32, in memory of
    its own.
    `prepare(stream, options)`, if any, runs first over the whole model and returns that `state` (else None).

    grain: `elements` if entries are merged independently of each other, so that pieces may be flat
        parts of tensors; `tensor` if `merge` needs each tensor whole.
    others: what becomes of a tensor whose kind (`kinds.Kind`) is not in `kinds`: merged by `merge` as well
        (`alike`), by the mean τ (`mean`), by options.scaling times that (`scaled_mean`), or left as in the
        base (`base`).
    statistics: what the method needs of the training data, in one file per specialist; None for none.
    unweighted: why the method takes no weights per specialist; empty where it takes them.
    check: raises R2MError where options do not fit the number of specialists, which it takes.
    describe: turns the state into a JSON-able part of the report.
    sweep: yields (options, update) of several candidates where they can share work.
    is_proportional: whether the update is options.scaling times something that does not depend on it, so that
        candidates which differ in nothing else share one merge.
    """

    title: str
    citation: str
    options: type[Section]
    merge: Callable[[Piece, Any, Any], Tensor]
    grain: Grain = "tensor"
    others: Others = "alike"
    kinds: frozenset[Kind] = MATRICES
    prepare: Callable[[TensorStream, Any], Any] | None = None
    check: Callable[[Any, int], None] | None = None
    describe: Callable[[Any], dict[str, Any]] | None = None
    sweep: Callable[[TensorStream, Sequence[Any]], Iterator[tuple[Any, dict[str, Tensor]]]] | None = None
    is_proportional: bool = False
    statistics: str | None = None
    unweighted: str = ""
    least_specialists: int = 1
    most_specialists: int | None = None
    name: str = ""

    def takes(self, count: int) -> bool:
        """Whether the method merges so many specialists."""
        return self.least_specialists <= count <= (self.most_specialists or count)

    def check_count(self, options: Any, count: int) -> None:
        """Raise R2MError where the method does not take so many specialists, or `options` do not fit them."""
        if not self.takes(count):
            raise R2MError(f"{self.name}: expected {self.counts} specialists, got {count}")
        if self.check is not None:
            self.check(options, count)

    @property
    def counts(self) -> str:
        """How many specialists the method merges, in words."""
        least, most = self.least_specialists, self.most_specialists
        return {None: f"at least {least}", least: f"{least}"}.get(most, f"{least} to {most}")
