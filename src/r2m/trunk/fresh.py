"""The detector's input of images that no stage has cached."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r2m.models.backbone import Detector
from r2m.models.images import normalization
from r2m.models.precision import autocast


def detector_input(
    detector: Detector,
    images: Sequence[NDArray[np.uint8]],
    backbone: str,
    device: torch.device,
    precision: str,
) -> Tensor:
    """Return what `detector.forward` takes of BGR images (H, W, 3) of its size, `(B, …)` in fp32.

    That is the normalized images, or with a trunk its activations, rounded to half precision like those that
    `r2m trunk` keeps. The detector has to be in evaluation mode.
    """
    rgb = np.stack([image[..., ::-1] for image in images]).transpose(0, 3, 1, 2)
    mean, std = normalization(backbone)
    normalized = ((torch.from_numpy(rgb.copy()).float().div_(255) - mean) / std).to(device)
    if detector.first_trainable is None:
        return normalized
    with torch.inference_mode(), autocast(device, precision):
        return detector.trunk(normalized).half().float()
