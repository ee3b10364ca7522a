"""Entire synthesis (EFS): the whole image goes through a generator's bottleneck or its upsampling."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from r2m.data.images import Image
from r2m.errors import R2MError
from r2m.forge.geometry import blend, to_uint8
from r2m.forge.registry import Face, Materials, Strength, forgery

PATCH, CODE = 8, 14


@dataclass(frozen=True)
class PatchAutoencoder:
    """Linear autoencoder of 8×8 patches: `mean` (192,), orthonormal `basis` (192, 14), `scale` (14,)."""

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    scale: NDArray[np.float32]


def fit_autoencoder(materials: Materials) -> PatchAutoencoder:
    """Fit the autoencoder by PCA to all patches of the training reals.

    Raises:
        R2MError: there is no image.
    """
    width = PATCH * PATCH * 3
    count, total, square = 0, np.zeros(width), np.zeros((width, width))
    for image in materials.reals:
        patches = to_patches(image).astype(np.float64)
        count += len(patches)
        total += patches.sum(axis=0)
        square += patches.T @ patches
    if count == 0:
        raise R2MError("forge ae: the autoencoder needs reals of the split 'train', and there are none")
    mean = total / count
    values, vectors = np.linalg.eigh(square / count - np.outer(mean, mean))
    scale = np.sqrt(np.maximum(values[::-1][:CODE], 0))
    basis = vectors[:, ::-1][:, :CODE]
    return PatchAutoencoder(mean.astype(np.float32), basis.astype(np.float32), scale.astype(np.float32))


@forgery("ae", "EFS", prepare=fit_autoencoder)
def ae(
    face: Face,
    donor: Face | None,
    rng: Generator,
    *,
    state: PatchAutoencoder,
    strength: Strength = 1.0,
) -> Image:
    """Decode the image on two grids, half a patch apart; `strength` is the decoded share at most."""
    image = face.image
    half = PATCH // 2
    moved = np.roll(image, (half, half), axis=(0, 1))
    decoded = [decode(image, state, rng), np.roll(decode(moved, state, rng), (-half, -half), axis=(0, 1))]
    return blend(image, (decoded[0] + decoded[1]) / 2, min(1.0, strength * rng.uniform(0.25, 0.5)))


def decode(image: Image, state: PatchAutoencoder, rng: Generator) -> NDArray[np.float32]:
    """Return the image's reconstruction from codes with a little noise, (S, S, 3)."""
    code = (to_patches(image) - state.mean) @ state.basis
    code += (0.04 * state.scale * rng.standard_normal(code.shape)).astype(np.float32)
    patches = (code @ state.basis.T + state.mean).astype(np.float32, copy=False)
    return from_patches(patches, image.shape[0])


def to_patches(image: Image) -> NDArray[np.float32]:
    """Return the patches (N, 192) of an image mirrored up to a multiple of the patch size."""
    pad = -image.shape[0] % PATCH
    padded = np.pad(image, ((0, pad), (0, pad), (0, 0)), mode="reflect").astype(np.float32)
    n = padded.shape[0] // PATCH
    return padded.reshape(n, PATCH, n, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(n * n, -1)


def from_patches(patches: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return the image (size, size, 3) of patches (N, 192); the inverse of `to_patches`."""
    n = -(-size // PATCH)
    grid = patches.reshape(n, n, PATCH, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(n * PATCH, n * PATCH, 3)[:size, :size]


@forgery("up", "EFS")
def up(face: Face, donor: Face | None, rng: Generator, *, strength: Strength = 1.0) -> Image:
    """Rebuild the image from a third of its size by zero-insertion; `strength` is the rebuilt share.

    The uneven kernel leaves peaks at the sampling frequencies (Odena et al., Distill 2016). A factor of
    three puts them below what the later resize cuts off.
    """
    image = face.image
    factor, size = 3, image.shape[0]
    small = cv2.resize(image, (-(-size // factor),) * 2, interpolation=cv2.INTER_AREA).astype(np.float32)
    sparse = np.zeros((small.shape[0] * factor, small.shape[1] * factor, 3), dtype=np.float32)
    sparse[factor // 2 :: factor, factor // 2 :: factor] = small
    kernels = []
    for _ in range(2):
        kernel = np.array([1, 2, 3, 2, 1], dtype=np.float32) / factor
        kernel[1:4] += (
            rng.uniform(0.02, 0.05) * np.array([-0.5, 1, -0.5], dtype=np.float32) * rng.choice([-1, 1])
        )
        kernels.append(kernel)
    rebuilt = cv2.sepFilter2D(sparse, -1, kernels[0], kernels[1], borderType=cv2.BORDER_REFLECT_101)
    return blend(image, rebuilt[:size, :size], min(1.0, strength * rng.uniform(0.12, 0.3)))


@forgery("dif", "EFS")
def dif(face: Face, donor: Face | None, rng: Generator, *, strength: Strength = 1.0) -> Image:
    """Remove the sensor's noise and add correlated grain; `strength` scales both."""
    image = face.image
    smooth = cv2.bilateralFilter(image, 5, strength * rng.uniform(14, 28), 2.0)
    grain = cv2.GaussianBlur(
        rng.standard_normal(image.shape[:2]).astype(np.float32), (0, 0), rng.uniform(1.0, 1.8)
    )
    level = strength * rng.uniform(0.8, 1.8) / max(float(grain.std()), 1e-6)
    return to_uint8(smooth.astype(np.float32) + level * grain[:, :, None])
