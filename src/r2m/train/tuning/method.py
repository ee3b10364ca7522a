"""What a tuning method declares about itself; without torch, so that params.yaml is read quickly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r2m.options import Section

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.models.backbone import Detector


def _no_tensors() -> Mapping[str, Tensor]:
    return {}


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Wrapping:
    """What a tuning method made of a detector.

    dense: returns every tensor of the layers that were replaced, under its name in the backbone, with what
        was trained put in.
    unwrap: puts these layers back, with what was trained put in.
    penalty: returns a scalar that is added to the loss, None for none.
    """

    dense: Callable[[], Mapping[str, Tensor]] = _no_tensors
    unwrap: Callable[[], None] = _nothing
    penalty: Callable[[], Tensor | None] = _nothing


@dataclass(frozen=True)
class Method:
    """A tuning method.

    `wrap(detector, options, seed)` gets a detector of which all parameters above the trunk require gradients.
    It takes this from those of the backbone that are not trained, or replaces layers of the backbone by
    others that train fewer parameters. What it draws depends on the seed alone. The head is always trained.

    A layer that replaces another is called as that one is; what it keeps besides its parameters are no
    buffers, which the resumable state would hold.
    """

    title: str
    citation: str
    options: type[Section]
    wrap: Callable[[Detector, Any, int], Wrapping]
    name: str = ""
