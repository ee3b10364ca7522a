"""Images as the detector's input: read, resized, normalized."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from r2m.errors import R2MError


def normalization(backbone: str) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `(3, 1, 1)` of the pretrained configuration of a timm model."""
    config = timm.get_pretrained_cfg(backbone)
    mean, std = (config.mean, config.std) if config else ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)


def load_images(paths: Sequence[str | Path], size: int) -> Tensor:
    """Return RGB images `(B, 3, size, size)` in [0, 1].

    Raises:
        R2MError: a file that cannot be read or has another size; nothing is put in its place.
    """
    images = []
    for path in paths:
        # OpenCV warns on its own of a file that is not there.
        image = cv2.imread(str(path), cv2.IMREAD_COLOR) if Path(path).is_file() else None
        if image is None:
            raise R2MError(f"{path}: cannot be read as an image, though the manifest lists it")
        if image.shape[:2] != (size, size):
            raise R2MError(f"{path}: is {image.shape[1]}×{image.shape[0]} px; expected {size}×{size}")
        images.append(image.astype(np.uint8, copy=False))
    return stacked(images)


def stacked(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return BGR images `(H, W, 3)` of one size as RGB `(B, 3, H, W)` in [0, 1]."""
    rgb = np.stack([image[..., ::-1] for image in images]).transpose(0, 3, 1, 2)
    return torch.from_numpy(rgb.copy()).float().div_(255)
