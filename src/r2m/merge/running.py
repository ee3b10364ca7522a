"""Running statistics of batch normalisation: measured rather than trained, they are averaged by every method.

A variance that is extrapolated like a weight may fall below zero.
"""

from torch import Tensor

from r2m.merge.blocks import Blocks
from r2m.merge.kinds import is_running_statistic


def trained(blocks: Blocks) -> Blocks:
    """Return the blocks that a method merges: all but running statistics."""
    kept = [key for key in (*blocks.keys, *blocks.unchanged) if not is_running_statistic(key)]
    return blocks.only(sorted(kept))


def averages(blocks: Blocks) -> dict[str, Tensor]:
    """Return the mean τ of the running statistics."""
    return {key: blocks.whole(key).mean() for key in blocks.keys if is_running_statistic(key)}
