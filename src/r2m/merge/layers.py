"""Numbers of transformer blocks in the names of tensors, for methods that are nothing without them."""

from collections.abc import Iterable

from r2m.errors import R2MError
from r2m.merge.kinds import layer


def require_layers(names: Iterable[str], method: str) -> list[int]:
    """Return the block's number of every tensor that belongs to one.

    Raises:
        R2MError: no name tells a block.
    """
    found = [number for number in map(layer, names) if number is not None]
    if not found:
        raise R2MError(
            f"{method}: no tensor's name tells a transformer block; expected names such as blocks.3.…,"
            " layers.3.…, resblocks.3.… or h.3.…"
        )
    return found
