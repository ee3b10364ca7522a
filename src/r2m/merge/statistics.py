"""What the specialists' statistics files hold of a tensor, checked."""

from collections.abc import Iterator

from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.blocks import Block, Blocks


def require_any(blocks: Blocks, method: str) -> None:
    """Raise R2MError if no specialist has statistics of any tensor."""
    specialists = range(len(blocks.names))
    if not any(
        blocks.whole(key).statistic(index) is not None
        for key in blocks.source.shapes
        for index in specialists
    ):
        raise R2MError(f"{method}: no specialist has statistics; give them by --statistics NAME=FILE")


def statistics(block: Block, shape: tuple[int, ...]) -> Iterator[Tensor] | None:
    """Return every specialist's statistics of a block in turn, in float64; None if nobody has any.

    Raises:
        R2MError: only some specialists have them, or they are not finite, or not of the `shape` expected.
    """
    first = block.statistic(0)
    if first is None:
        for index in range(1, len(block.names)):
            if block.statistic(index) is not None:
                raise _missing(block, 0)
        return None
    return _each(block, shape, first)


def _each(block: Block, shape: tuple[int, ...], first: Tensor) -> Iterator[Tensor]:
    for index, name in enumerate(block.names):
        found = block.statistic(index) if index else first
        if found is None:
            raise _missing(block, index)
        if found.shape != shape:
            got = tuple(found.shape)
            raise R2MError(f"{block.key}: statistics of {name!r}: expected shape {shape}, got {got}")
        if not found.isfinite().all():
            raise R2MError(f"{block.key}: statistics of {name!r} hold NaN or infinite values")
        yield found.double()


def _missing(block: Block, index: int) -> R2MError:
    return R2MError(f"{block.key}: missing in the statistics of {block.names[index]!r}, but others have it")
