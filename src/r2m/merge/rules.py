"""Rules of a merge: tensors whose names fit a pattern have options of their own; without torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from r2m.errors import R2MError
from r2m.merge.kinds import is_running_statistic
from r2m.merge.method import Method
from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.stream import Piece, TensorStream

    # The function that gives updates, and the state of the method's passes, by place: 0 for the merge's own
    # options, 1 + n for those of rule n.
    Bound = dict[int, tuple[Callable[[Piece], Tensor], Any]]


@dataclass(frozen=True)
class Rule:
    """Complete options of the tensors whose names fit the pattern `match`; errors call it `source`."""

    match: str
    options: Section
    source: str


def assigned(rules: Sequence[Rule], keys: Iterable[str]) -> dict[str, int]:
    """Return the number of the rule of every tensor that has one: of the rules that fit it the first.

    Running statistics have none, since every method averages them.

    Raises:
        R2MError: a rule that fits none of the tensors `keys`, or only such that have an earlier one.
    """
    merged = [key for key in keys if not is_running_statistic(key)]
    numbers: dict[str, int] = {}
    for number, rule in enumerate(rules):
        fitting = fnmatch.filter(merged, rule.match)
        if not fitting:
            raise R2MError(
                f"{rule.source}: fits no tensor that is merged; heads, excluded tensors, integers and running"
                " statistics are not"
            )
        free = [key for key in fitting if key not in numbers]
        if not free:
            raise R2MError(
                f"{rule.source}: every tensor that it fits has an earlier rule, and the first one counts;"
                " expected the narrower pattern first"
            )
        numbers |= dict.fromkeys(free, number)
    return numbers


def ruled(
    method: Method, options: Any, rules: Sequence[Rule], numbers: Mapping[str, int], stream: TensorStream
) -> Method:
    """Return a method that merges every tensor with the options of its rule, and others with `options`.

    A tensor becomes what the merge of the whole model with the options of its rule makes of it: where a
    method takes passes over the model, they are made once for each set of options, and over all tensors.
    `numbers` are those of `assigned`, `stream` is that of the merge.
    """
    every = [options, *(rule.options for rule in rules)]

    def bind(whole: TensorStream, _: Any) -> Bound:
        from r2m.merge.merging import updater

        bound: Bound = {}
        for place in sorted({place_of(key) for key in (*whole.keys, *whole.unchanged)}):
            equal = next((other for other in bound if every[other] == every[place]), None)
            bound[place] = updater(method, whole, every[place]) if equal is None else bound[equal]
        return bound

    def place_of(key: str) -> int:
        return numbers.get(key, -1) + 1

    # Without passes over the model all is known before, and the merge stays one of a single pass.
    known = bind(stream, options) if method.prepare is None else {}

    def merge(piece: Piece, _: Any, state: Bound | None) -> Tensor:
        update, _ = (known if state is None else state)[place_of(piece.key)]
        return update(piece)

    def describe(state: Bound) -> dict[str, Any]:
        assert method.describe is not None
        told = {place: method.describe(own) for place, (_, own) in state.items()}
        by_rule = {rules[place - 1].match: one for place, one in told.items() if place}
        return told.get(0, {}) | {"rules": by_rule}

    return replace(
        method,
        merge=merge,
        prepare=None if method.prepare is None else bind,
        describe=None if method.describe is None else describe,
        others="alike",
    )
