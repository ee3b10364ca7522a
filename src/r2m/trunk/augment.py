"""Augmentation of crops in training: what DeepfakeBench (Yan et al., NeurIPS 2023) and DF40 do.

What is drawn for an image depends on a seed and its id alone, so that the same images come out however a
batch is shared out among processes. A further augmentation is one more function here with its entry in
`AUGMENTATIONS`, and the option of that name.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from r2m.data import perturbations
from r2m.models.preprocess import stacked
from r2m.seeding import rng
from r2m.trunk.options import AugmentOptions

# From an image (3, H, W) in [0, 1], the options and a generator of random numbers, to the image augmented.
Augmentation = Callable[[Tensor, AugmentOptions, np.random.Generator], Tensor]


def augmented(image: Tensor, options: AugmentOptions, seed: int, image_id: str) -> Tensor:
    """Return an image `(3, H, W)` in [0, 1] under all augmentations that are on.

    Each has random numbers of its own, which do not change with the options of the others.
    """
    for name, apply in AUGMENTATIONS.items():
        if getattr(options, name):
            image = apply(image, options, rng(seed, name, image_id))
    return image.clamp(0, 1)


def flip(image: Tensor, options: AugmentOptions, random: np.random.Generator) -> Tensor:
    """Return the image, or its mirror image."""
    return F.horizontal_flip(image) if random.random() < options.flip else image


def rotate(image: Tensor, options: AugmentOptions, random: np.random.Generator) -> Tensor:
    """Return the image turned about its centre; what comes in at the border is its reflection."""
    angle = random.uniform(-options.rotate, options.rotate)
    height, width = image.shape[1:]
    turn = math.radians(abs(angle))
    # How far the corners of the turned frame stand out.
    border = math.ceil(max(height, width) * (math.cos(turn) + math.sin(turn) - 1) / 2) + 1
    padded = F.pad(image, [border], padding_mode="reflect")
    rotated = F.rotate(padded, angle, InterpolationMode.BILINEAR)
    return F.center_crop(rotated, [height, width]).contiguous()


def blur(image: Tensor, options: AugmentOptions, random: np.random.Generator) -> Tensor:
    """Return the image, or its convolution with a Gaussian; σ follows from the size of the kernel."""
    if random.random() >= options.blur:
        return image
    least, most = options.blur_kernel
    size = int(random.choice(np.arange(least, most + 1, 2)))
    # By OpenCV: torchvision's convolution of a single image takes ten times as long.
    blurred = cv2.GaussianBlur(image.permute(1, 2, 0).contiguous().numpy(), (size, size), 0)
    return torch.from_numpy(blurred).permute(2, 0, 1).contiguous()


def brightness(image: Tensor, options: AugmentOptions, random: np.random.Generator) -> Tensor:
    """Return the image with all values changed by a share of theirs."""
    return F.adjust_brightness(image, 1 + random.uniform(-options.brightness, options.brightness))


def contrast(image: Tensor, options: AugmentOptions, random: np.random.Generator) -> Tensor:
    """Return the image with all distances from its mean grey level changed by a share of theirs."""
    return F.adjust_contrast(image, 1 + random.uniform(-options.contrast, options.contrast))


def resize(image: Tensor, options: AugmentOptions, random: np.random.Generator) -> Tensor:
    """Return the image, or the image scaled down and up again."""
    if random.random() >= options.resize:
        return image
    share = random.uniform(*options.resize_to)
    height, width = image.shape[1:]
    small = F.resize(image, [max(1, round(height * share)), max(1, round(width * share))])
    return F.resize(small, [height, width])


def jpeg(image: Tensor, options: AugmentOptions, random: np.random.Generator) -> Tensor:
    """Return the image, or the image compressed by JPEG and decoded again."""
    if random.random() >= options.jpeg:
        return image
    least, most = options.jpeg_quality
    # By OpenCV, too: torchvision is giving up its own.
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    bgr = levels.permute(1, 2, 0).numpy()[..., ::-1]
    return stacked([perturbations.jpeg(bgr, int(random.integers(least, most + 1)))])[0]


# By the option that is 0 where one is off, in the order in which they are applied.
AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": flip,
    "rotate": rotate,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "resize": resize,
    "jpeg": jpeg,
}
