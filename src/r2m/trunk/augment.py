"""Augmentation of crops on the fly."""

import torch
import torch.nn.functional as F
from torch import Tensor

from r2m.trunk.options import AugmentOptions


def augment(images: Tensor, options: AugmentOptions, seed: int) -> Tensor:
    """Return `images` `(B, 3, H, W)` in [0, 1], each flipped, rotated and toned at random.

    Every draw comes from `seed` alone, so that a resumed training sees the same images.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(images)

    def uniform(bound: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * bound

    flip = torch.where(torch.rand(count, generator=generator) < options.flip, -1.0, 1.0)
    angle = torch.deg2rad(uniform(options.rotate))
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros(count)
    affine = torch.stack([flip * cos, -sin, zero, flip * sin, cos, zero], dim=1).view(count, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    warped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    contrast, brightness = 1 + uniform(options.contrast), uniform(options.brightness)
    mean = warped.mean(dim=(1, 2, 3), keepdim=True)
    toned = (warped - mean) * contrast.view(-1, 1, 1, 1) + mean + brightness.view(-1, 1, 1, 1)
    return toned.clamp(0, 1)
