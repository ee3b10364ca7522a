"""The outputs of a detector's trainable blocks, as its head would pool them."""

from collections.abc import Iterator
from contextlib import contextmanager

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from r2m.models.backbone import Detector


@contextmanager
def recorded_blocks(detector: Detector) -> Iterator[dict[str, list[Tensor]]]:
    """Record the output of every trainable block of a vision transformer while the context is open.

    Yields block name (`blocks.8`) → one tensor (B, D) in float32 on the CPU for every batch that runs. Tokens
    are pooled as those of the last block are: the class token where the head reads that, else their mean (or
    what else timm's `global_pool` says), so that every block is seen through the same tokens. Other
    backbones have no blocks of one width, and nothing is recorded.
    """
    recorded: dict[str, list[Tensor]] = {}
    vit = detector.backbone
    if not isinstance(vit, VisionTransformer):
        yield recorded
        return

    def record(batches: list[Tensor], tokens: Tensor) -> None:
        batches.append(vit.pool(tokens).float().cpu())

    hooks = []
    for index, block in enumerate(vit.blocks):
        if index < (detector.first_trainable or 0):
            continue
        batches = recorded[f"blocks.{index}"] = []
        if index < len(vit.blocks) - 1:
            hooks.append(
                block.register_forward_hook(lambda _, __, out, batches=batches: record(batches, out))
            )
        else:
            # Of the last block a detector may compute the class token alone, without calling the block.
            hooks.append(
                vit.norm.register_forward_pre_hook(lambda _, args, batches=batches: record(batches, args[0]))
            )
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()
