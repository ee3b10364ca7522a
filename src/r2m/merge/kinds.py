"""Which tensors count as matrices: the one place that decides, without torch."""

import re
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a method that works on matrices makes of a tensor."""

    MATRIX = "matrix"
    CONVOLUTION = "convolution"
    VECTOR = "vector"


MATRICES = frozenset({Kind.MATRIX})
MATRICES_AND_CONVOLUTIONS = frozenset({Kind.MATRIX, Kind.CONVOLUTION})

# Tables of tokens and positions are added to activations, not multiplied with them.
_TABLE = re.compile(r"pos(ition(al)?)?_?emb|class_?emb|cls_token|dist_token|reg_token|relative_position")

# Numbered blocks, alone (`blocks.3.attn…`, `encoder.layers.3.…`, `resblocks.3.…`, `h.3.…`) or within stages
# (`stages.2.blocks.5.…`, `layers.2.blocks.5.…`, `blocks.2.5.…`, `features.2.5.…`, `layer2.5.…`).
_BLOCK = re.compile(
    r"(?:^|\.)(?:"
    r"(?:stages?|levels|blocks|features)\.(\d+)\.(?:(?:(?:blocks|layers)\.)?(\d+)\.)?"
    r"|layers\.(\d+)\.(?:blocks\.(\d+)\.)?"
    r"|(?:layer|stage|block)(?P<from_one>\d+)\.(?:(?:blocks\.)?(\d+)\.)?"
    r"|(?:layer|resblocks|h)\.(\d+)\.()?"
    r")"
)


def kind(name: str, shape: tuple[int, ...]) -> Kind:
    """Return the kind of a tensor: 2-D ones are matrices, 4-D ones convolutions, the rest are vectors.

    Class tokens, position embeddings and position biases are vectors at any shape, also where an
    implementation stores them as a 2-D table.
    """
    if _TABLE.search(name):
        return Kind.VECTOR
    return {2: Kind.MATRIX, 4: Kind.CONVOLUTION}.get(len(shape), Kind.VECTOR)


# What batch normalisation has seen of its inputs: measured, not trained.
_RUNNING = re.compile(r"(?:^|\.)running_(?:mean|var)$")


def is_running_statistic(name: str) -> bool:
    """Tell whether a tensor is a running mean or variance of batch normalisation."""
    return _RUNNING.search(name) is not None


class Place(NamedTuple):
    """Where in a model a tensor stands: `tower` is what its name begins with, before any number.

    `numbers` are that of its block, or those of its stage and block, or of a stage alone.
    """

    tower: str
    numbers: tuple[int, ...]


def place(name: str) -> Place | None:
    """Return the place of the block that a tensor belongs to; None for stem, final norm and head."""
    found = _BLOCK.search(name)
    if found is None:
        return None
    numbers = [int(one) for one in found.groups() if one]
    if found["from_one"]:
        numbers[0] = max(numbers[0] - 1, 0)
    return Place(name[: found.start()], tuple(numbers))
