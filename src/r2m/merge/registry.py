"""Merging methods by name; a method's module is imported when it is first used."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r2m.errors import R2MError
from r2m.merge.options import OPTIONS
from r2m.params import Section, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.merge.tensors import TaskVectors


@dataclass(frozen=True)
class Method:
    """A merging method: the module `r2m.merge.methods.<name>` with its options' class."""

    name: str
    options: type[Section]

    def merge(self, task_vectors: "TaskVectors", options: Section) -> "dict[str, Tensor]":
        """Return the update, θ* = θ₀ + update; raises R2MError for task vectors that do not fit together."""
        return self._module().merge(task_vectors, **dict(options))

    def sweep(
        self, task_vectors: "TaskVectors", candidates: Sequence[Section]
    ) -> "Iterator[tuple[Section, dict[str, Tensor]]]":
        """Yield every candidate's options and update, in an order that suits the method.

        The updates equal those of `merge`. A method that can share work among candidates brings a `sweep`.
        """
        own = getattr(self._module(), "sweep", None)
        if own is not None:
            yield from own(task_vectors, candidates)
        else:
            for options in candidates:
                yield options, self.merge(task_vectors, options)

    def _module(self) -> Any:
        return importlib.import_module(f"r2m.merge.methods.{self.name}")


def names() -> list[str]:
    """Return the names of all methods."""
    return sorted(OPTIONS)


def get(name: str) -> Method:
    """Return a method.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    if name not in OPTIONS:
        raise R2MError(f"unknown merging method {name!r}{nearest(name, OPTIONS)}")
    return Method(name, OPTIONS[name])
