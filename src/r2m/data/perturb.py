"""Perturbations of images: compression, blur, noise, lost resolution, faded colours.

They are those of DF40 (Yan et al., NeurIPS 2024) and of DeepfakeBench, on BGR images (H, W, 3) in uint8.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from r2m.data.images import Image
from r2m.seeding import rng


def jpeg(image: Image, quality: int) -> Image:
    """Return `image` compressed by JPEG of a quality from 1 to 100, and decoded again."""
    _, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _uint8(cv2.imdecode(buffer, cv2.IMREAD_COLOR))


def blur(image: Image, level: tuple[int, float]) -> Image:
    """Return `image` under a Gaussian of (odd size of the kernel, σ), in pixels."""
    size, sigma = level
    return _uint8(cv2.GaussianBlur(image, (size, size), sigma))


def noise(image: Image, sigma: float, random: np.random.Generator) -> Image:
    """Return `image` with independent Gaussian noise on every value; σ is a share of the range 0–255."""
    return _uint8(image + 255 * sigma * random.standard_normal(image.shape))


def resize(image: Image, share: float) -> Image:
    """Return `image` scaled down to a share of its size by area, and up again bilinearly."""
    height, width = image.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return _uint8(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR))


def saturation(image: Image, factor: float) -> Image:
    """Return `image` with colours at a factor of their distance from its grey version."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None].astype(float)
    return _uint8(grey + factor * (image - grey))


def contrast(image: Image, factor: float) -> Image:
    """Return `image` with values at a factor of their distance from the mean of its grey version."""
    mean = float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())
    return _uint8(mean + factor * (image - mean))


PERTURBATIONS: dict[str, Callable[..., Image]] = {
    "jpeg": jpeg,
    "blur": blur,
    "noise": noise,
    "resize": resize,
    "saturation": saturation,
    "contrast": contrast,
}


def perturbed(image: Image, name: str, level: Any, seed: int, image_id: str) -> Image:
    """Return `image` under a perturbation; noise depends on the seed, the level and the image's id."""
    if name == "noise":
        return noise(image, level, rng(seed, "noise", str(level), image_id))
    return PERTURBATIONS[name](image, level)


def _uint8(values: Any) -> Image:
    """Return values rounded to integers of the range."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
