"""What the names and shapes of tensors tell; without torch.

The kind of a tensor is the algebra that it stands for: matrix, convolution or vector (`Kind`). Its place is
the numbered block of the model that it belongs to (`Place`), from which depths follow.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from r2m.errors import R2MError

# Whether a method merges entries independently of each other, or needs tensors whole.
Grain = Literal["elements", "tensor"]


class Kind(StrEnum):
    """What a tensor is to a method that works on matrices."""

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
    match = _BLOCK.search(name)
    if match is None:
        return None
    numbers = [int(number) for number in match.groups() if number]
    if match["from_one"]:
        numbers[0] = max(numbers[0] - 1, 0)
    return Place(name[: match.start()], tuple(numbers))


def role(name: str) -> tuple[str, str] | None:
    """Return what a tensor is within its block: the tower, and its name from behind the block's numbers.

    It is the same in all blocks of a tower; None outside the blocks.
    """
    match = _BLOCK.search(name)
    return None if match is None else (name[: match.start()], name[match.end() :])


def depths(names: Iterable[str], method: str) -> dict[str, float]:
    """Return the depth of every tensor that belongs to a block: from 0 at the first block to 1 at the last.

    Block l of L stands at l / (L - 1), 0 where there is one only. Blocks within stages are counted through
    all stages, and a tensor of a stage outside its blocks (downsampling) stands at the stage's first one.
    Towers of a model, such as those of images and texts, are counted by themselves.

    Raises:
        R2MError: no name tells a block.
    """
    places = {name: position for name in names if (position := place(name)) is not None}
    if not places:
        raise R2MError(
            f"{method}: no tensor's name tells the block that it belongs to; expected names such as"
            " blocks.3.…, layers.3.…, resblocks.3.…, h.3.…, stages.2.blocks.3.… or layer2.3.…"
        )
    counts = _stages(places.values())
    firsts = {tower: _firsts(stages) for tower, stages in counts.items()}
    result = {}
    for name, (tower, numbers) in places.items():
        starts, total = firsts[tower]
        number = starts[numbers[0]] + (numbers[1] if len(numbers) > 1 else 0)
        result[name] = number / (total - 1) if total > 1 else 0.0
    return result


def _stages(places: Iterable[Place]) -> dict[str, dict[int, int]]:
    """Return the number of blocks in every stage of every tower; a block without a stage counts as both."""
    counts: dict[str, dict[int, int]] = {}
    for tower, numbers in places:
        stages = counts.setdefault(tower, {})
        blocks = numbers[1] + 1 if len(numbers) > 1 else 1
        stages[numbers[0]] = max(stages.get(numbers[0], 0), blocks)
    return counts


def _firsts(stages: dict[int, int]) -> tuple[dict[int, int], int]:
    """Return the number of every stage's first block, and that of all blocks; numbers left out are stages."""
    firsts, total = {}, 0
    for stage in range(1 + max(stages)):
        firsts[stage] = total
        total += stages.get(stage, 1)
    return firsts, total


def first_names(
    shapes: Mapping[str, tuple[int, ...]], keys: Iterable[str], equal: Callable[[str, str], bool]
) -> dict[str, str]:
    """Return of every tensor in `keys` the first one in their order that is equal to it, often itself."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    firsts = {}
    for key in keys:
        candidates = by_shape.setdefault(shapes[key], [])
        firsts[key] = next((candidate for candidate in candidates if equal(candidate, key)), key)
        if firsts[key] == key:
            candidates.append(key)
    return firsts
