"""Detectors made by hand, which look at one patch of a 4 × 4 grid and nowhere else."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from r2m.models.config import DetectorConfig
from r2m.models.image_detector import ImageDetector

SIZE, GRID = 32, 4
PATCHES = GRID**2
CONTENT = PATCHES + 1  # the dimension of a token that holds how bright its patch is
WIDTH = 24


class HandMade(nn.Module):
    """What an `ImageDetector` asks of a `Detector`."""

    def __init__(self, backbone: nn.Module, weight: torch.Tensor) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(len(weight), 1, bias=False)
        self.head.weight.data = weight[None].clone()

    def forward(self, images):
        return self.head(self.backbone(images)).squeeze(1)


class Patches(nn.Module):
    """A convolutional network with a channel for every patch, which is its brightness there, else 0."""

    num_features = PATCHES

    def forward_features(self, images):
        bright = images.abs().mean(dim=1, keepdim=True)
        patches = nn.functional.avg_pool2d(bright, SIZE // GRID)
        return patches * torch.eye(PATCHES).view(1, PATCHES, GRID, GRID)

    def forward_head(self, features):
        return features.sum(dim=(2, 3))

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


class LastChannels(Patches):
    """The same with channels last, as some transformers have them."""

    def forward_features(self, images):
        return super().forward_features(images).permute(0, 2, 3, 1)


def detector_of(model: nn.Module) -> ImageDetector:
    config = DetectorConfig(
        backbone="hand-made",
        head="linear",
        image_size=SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        crop_size=SIZE,
        margin=1.0,
        precision="fp32",
    )
    return ImageDetector(model.eval(), config, {}, torch.device("cpu"), "fp32")


def convolutional(patch: int) -> ImageDetector:
    """Look at one patch by its channel."""
    return detector_of(HandMade(Patches(), torch.eye(PATCHES)[patch]))


def attending(patch: int, pool: str = "token") -> ImageDetector:
    """Look at one patch by attention: all tokens attend to it, and take over how bright it is."""
    vit = VisionTransformer(
        img_size=SIZE, patch_size=SIZE // GRID, embed_dim=WIDTH, depth=1, num_heads=1, num_classes=0,
        global_pool=pool, fc_norm=False,
    )  # fmt: skip
    (block,) = vit.blocks
    block.norm1 = vit.norm = nn.Identity()
    for tensor in vit.parameters():
        tensor.data.zero_()
    # A token holds its own place, and how bright its patch is.
    vit.pos_embed.data[0, :CONTENT, :CONTENT] = torch.eye(CONTENT)
    vit.patch_embed.proj.weight.data[CONTENT] = 1.0 / (3 * (SIZE // GRID) ** 2)
    query, key, value = block.attn.qkv.weight.data.view(3, WIDTH, WIDTH)
    query[patch + 1, :CONTENT] = 100.0
    key[:] = torch.eye(WIDTH)
    value[CONTENT, CONTENT] = 1.0
    block.attn.proj.weight.data = torch.eye(WIDTH)
    return detector_of(HandMade(vit, torch.eye(WIDTH)[CONTENT]))
