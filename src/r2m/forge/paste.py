"""Moving another face onto a photograph: alignment by landmarks, colour and blending."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from r2m.data.align import COVERED, Landmarks, coverage, similarity
from r2m.data.images import Image
from r2m.forge.geometry import Mask, blend, face_mask, to_uint8
from r2m.forge.registry import Face, NoFake

# Rings of frequencies in which power is matched, and by how much an amplitude may change there.
RINGS = 24
RING_GAIN = (0.4, 2.5)
# What counts as no power, of a flat image or in a ring without frequencies.
POWERLESS = 1e-3


def given(donor: Face | None) -> Face:
    """Return the donor that a forgery with `needs_donor` gets; raises ValueError without one."""
    if donor is None:
        raise ValueError("this forgery needs a donor")
    return donor


def moved_onto(face: Face, landmarks: Landmarks, size: int) -> Image:
    """Return the image (size, size, 3) of a face moved so that its landmarks lie on `landmarks` (5, 2).

    What is missing at the edge is mirrored.
    """
    matrix = similarity(face.landmarks, landmarks)
    moved = cv2.warpAffine(
        face.image, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return moved.astype(np.uint8, copy=False)


def covers(face: Face, landmarks: Landmarks, size: int) -> bool:
    """Tell whether the image of a face so moved covers the square, as far as that is asked of photographs."""
    return coverage(face.image.shape, similarity(face.landmarks, landmarks), size) >= COVERED


def match_colour(image: Image, target: Image, mask: Mask) -> Image:
    """Give `image` the mean and spread of `target` under `mask` in CIELAB (Reinhard et al., 2001)."""
    lab = [cv2.cvtColor(i, cv2.COLOR_BGR2LAB).astype(np.float32) for i in (image, target)]
    weight = (mask / max(float(mask.sum()), 1e-6))[:, :, None]
    mean = [(weight * i).sum(axis=(0, 1)) for i in lab]
    spread = [np.sqrt((weight * (i - m) ** 2).sum(axis=(0, 1))) for i, m in zip(lab, mean, strict=True)]
    gain = np.clip(spread[1] / np.maximum(spread[0], 1.0), 0.5, 1.6)
    matched = to_uint8((lab[0] - mean[0]) * gain + mean[1])
    return cv2.cvtColor(matched, cv2.COLOR_LAB2BGR).astype(np.uint8, copy=False)


def match_spectrum(image: Image, target: Image, mask: Mask) -> Image:
    """Give `image` the power that `target` has at every frequency, both seen through `mask`.

    What a network draws is smoother than a photograph: without this a spectrum would tell them.
    """
    size = image.shape[0]
    radius = _radius(size)
    power = [_ring_power(i, mask, radius) for i in (image, target)]
    gain = np.sqrt((power[1] + POWERLESS) / (power[0] + POWERLESS)).clip(*RING_GAIN)
    gain[0] = 1.0  # the colours are matched elsewhere
    border = size // 4
    padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REFLECT_101)
    side = padded.shape[0]
    factor = np.interp(_radius(side), (np.arange(RINGS) + 0.5) / RINGS, gain)
    spectrum = np.fft.rfft2(padded.astype(np.float64), axes=(0, 1)) * factor[:, :, None]
    matched = np.fft.irfft2(spectrum, s=(side, side), axes=(0, 1))
    return to_uint8(matched[border : border + size, border : border + size])


def _radius(size: int) -> NDArray[np.float64]:
    """Return the frequencies (S, S // 2 + 1) of a real transform, as shares of the highest one."""
    across, down = np.fft.rfftfreq(size), np.fft.fftfreq(size)
    return np.hypot(down[:, None], across[None, :]) / np.sqrt(0.5)


def _ring_power(image: Image, mask: Mask, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean power (RINGS,) of grey levels under a mask, by distance from frequency 0."""
    grey = image.astype(np.float64).mean(axis=2)
    centred = (grey - (mask * grey).sum() / max(float(mask.sum()), 1e-6)) * mask
    power = np.abs(np.fft.rfft2(centred)) ** 2
    ring = np.minimum((radius * RINGS).astype(np.int64), RINGS - 1).ravel()
    return np.bincount(ring, power.ravel(), RINGS) / np.maximum(np.bincount(ring, minlength=RINGS), 1)


def shown_whole(other: Face, face: Face) -> Image:
    """Return the image of another face moved onto `face`, with its colours and spectrum."""
    size = face.image.shape[0]
    everywhere = np.ones((size, size), np.float32)
    moved = match_colour(moved_onto(other, face.landmarks, size), face.image, everywhere)
    return match_spectrum(moved, face.image, everywhere)


def first_shown_whole(others: Iterable[Face | None], face: Face) -> Image:
    """Return `shown_whole` of the first of some faces that covers the crop.

    Raises:
        NoFake: none of them is a face (None) that does.
    """
    for other in others:
        if other is not None and covers(other, face.landmarks, face.image.shape[0]):
            return shown_whole(other, face)
    raise NoFake("none of the generated images has a face and covers the crop")


def pasted(other: Face, face: Face, mask: Mask) -> Image:
    """Return the image of `face` with another one, aligned and matched, in its place under a soft mask."""
    image = face.image
    moved = match_colour(moved_onto(other, face.landmarks, image.shape[0]), image, mask)
    return blend(image, match_spectrum(moved, image, mask), mask)


def inner_face(face: Face, rng: Generator, width: float = 1.0, height: float = 1.2) -> Mask:
    """Return the soft mask (S, S) of an inner face of random size; the half axes are in units of the face."""
    size, scale = face.image.shape[0], rng.uniform(0.9, 1.0)
    return face_mask(face.landmarks, size, rng.uniform(2.0, 5.0), scale * width, scale * height)
