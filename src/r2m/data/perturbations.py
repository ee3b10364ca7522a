"""Perturbations of images: compression, blur, noise, lost resolution, faded colours.

They are those of DF40 (Yan et al., NeurIPS 2024) and of DeepfakeBench, on BGR images (H, W, 3) in uint8. A
further one is one more function here under `@perturbation`: params.yaml, the tables and the figure of the
experiment `robustness` follow from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt, Strict

from r2m.options import Fraction, Positive, odd
from r2m.seeding import rng

if TYPE_CHECKING:
    import numpy as np

    from r2m.data.images import Image


@dataclass(frozen=True)
class Perturbation:
    """A perturbation, the type of its levels for pydantic, and how readers see it.

    `apply` takes an image and a level, and a generator of random numbers where it has a parameter `random`.
    """

    apply: Callable[..., Image]
    level: Any
    description: str
    title: str
    axis: str
    level_text: Callable[[Any], str]


PERTURBATIONS: dict[str, Perturbation] = {}


def perturbation(
    level: Any,
    description: str,
    title: str,
    axis: str | None = None,
    level_text: Callable[[Any], str] = "{:.3g}".format,
) -> Callable[[Callable[..., Image]], Callable[..., Image]]:
    """Register a function under its own name; tables show `title` and figures `axis`, if that is another."""

    def register(apply: Callable[..., Image]) -> Callable[..., Image]:
        PERTURBATIONS[apply.__name__] = Perturbation(
            apply, level, description, title, axis or title, level_text
        )
        return apply

    return register


def perturbed(image: Image, name: str, level: Any, seed: int, image_id: str) -> Image:
    """Return `image` under a perturbation; what is random in it depends on the seed, level and image's id."""
    apply = PERTURBATIONS[name].apply
    if "random" in inspect.signature(apply).parameters:
        return apply(image, level, rng(seed, name, str(level), image_id))
    return apply(image, level)


def _uint8(values: Any) -> Image:
    """Return values rounded to integers of the range."""
    import numpy as np

    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@perturbation(level=Annotated[int, Field(ge=1, le=100)], description="qualities", title="JPEG quality")
def jpeg(image: Image, quality: int) -> Image:
    """Return `image` compressed by JPEG of a quality from 1 to 100, and decoded again."""
    import cv2
    import numpy as np

    _, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(buffer, cv2.IMREAD_COLOR), np.uint8)


@perturbation(
    level=Annotated[tuple[Annotated[PositiveInt, AfterValidator(odd)], Positive], Strict(False)],
    description="[odd size of the kernel, σ] in pixels",
    title="Blur, σ in pixels",
    axis="Blur σ (px)",
    level_text=lambda level: f"{level[1]:g}",
)
def blur(image: Image, level: tuple[int, float]) -> Image:
    """Return `image` under a Gaussian of (odd size of the kernel, σ), in pixels."""
    import cv2

    size, sigma = level
    return _uint8(cv2.GaussianBlur(image, (size, size), sigma))


@perturbation(
    level=Positive,
    description="σ as a share of the range of values",
    title="Noise, σ of the range",
    axis="Noise σ",
)
def noise(image: Image, sigma: float, random: np.random.Generator) -> Image:
    """Return `image` with independent Gaussian noise on every value; σ is a share of the range 0–255."""
    return _uint8(image + 255 * sigma * random.standard_normal(image.shape))


@perturbation(
    level=Fraction, description="share of the size that images are scaled to", title="Scaled down to"
)
def resize(image: Image, share: float) -> Image:
    """Return `image` scaled down to a share of its size by area, and up again bilinearly."""
    import cv2

    height, width = image.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return _uint8(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR))


@perturbation(level=Annotated[float, Field(ge=0)], description="factors", title="Saturation")
def saturation(image: Image, factor: float) -> Image:
    """Return `image` with colours at a factor of their distance from its grey version."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None].astype(float)
    return _uint8(grey + factor * (image - grey))


@perturbation(level=Annotated[float, Field(ge=0)], description="factors", title="Contrast")
def contrast(image: Image, factor: float) -> Image:
    """Return `image` with values at a factor of their distance from the mean of its grey version."""
    import cv2

    mean = float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())
    return _uint8(mean + factor * (image - mean))
