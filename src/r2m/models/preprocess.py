"""Images as the detector's input: read, resized, normalized."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor

from r2m.data.images import Image, read_square
from r2m.errors import R2MError


def normalization(backbone: str) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `(3, 1, 1)` of the pretrained configuration of a timm model."""
    config = timm.get_pretrained_cfg(backbone)
    mean, std = (config.mean, config.std) if config else ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)


def load_images(paths: Sequence[str | Path], size: int) -> Tensor:
    """Return RGB images `(B, 3, size, size)` in [0, 1]; raises like `load_image`."""
    return stacked([load_image(path, size) for path in paths])


def load_image(path: str | Path, size: int) -> Image:
    """Return a photograph of any kind and size as BGR `(size, size, 3)` (`r2m.data.images.read_square`).

    Raises:
        R2MError: a file that cannot be read, or that is far from square; nothing is put in its place.
    """
    try:
        return read_square(Path(path), size)
    except ValueError as error:
        raise R2MError(f"{path}: {error}; the manifest lists it") from error


def stacked(images: Sequence[Image]) -> Tensor:
    """Return BGR images `(H, W, 3)` of one size as RGB `(B, 3, H, W)` in [0, 1]."""
    rgb = np.stack([image[..., ::-1] for image in images]).transpose(0, 3, 1, 2)
    return torch.from_numpy(rgb.copy()).float().div_(255)
