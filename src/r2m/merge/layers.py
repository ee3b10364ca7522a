"""How deep in a model its tensors stand, told by their names, for methods that are nothing without that."""

from collections.abc import Iterable

from r2m.errors import R2MError
from r2m.merge.kinds import Place, place


def depths(names: Iterable[str], method: str) -> dict[str, float]:
    """Return the depth of every tensor that belongs to a block: from 0 at the first block to 1 at the last.

    Block l of L stands at l / (L - 1), 0 where there is one only. Blocks within stages are counted through
    all stages, and a tensor of a stage outside its blocks (downsampling) stands at the stage's first one.
    Towers of a model, such as those of images and texts, are counted by themselves.

    Raises:
        R2MError: no name tells a block.
    """
    places = {name: at for name in names if (at := place(name)) is not None}
    if not places:
        raise R2MError(
            f"{method}: no tensor's name tells the block that it belongs to; expected names such as"
            " blocks.3.…, layers.3.…, resblocks.3.…, h.3.…, stages.2.blocks.3.… or layer2.3.…"
        )
    counts = _stages(places.values())
    firsts = {tower: _firsts(stages) for tower, stages in counts.items()}
    found = {}
    for name, (tower, numbers) in places.items():
        starts, total = firsts[tower]
        number = starts[numbers[0]] + (numbers[1] if len(numbers) > 1 else 0)
        found[name] = number / (total - 1) if total > 1 else 0.0
    return found


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
