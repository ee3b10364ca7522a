"""A pool of a GAN's faces with their latents: what inversion and the directions of edits are learned from."""

import functools
import logging
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from r2m.data.faces import thread_map
from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.forge.geometry import axes
from r2m.forge.networks import stylegan
from r2m.forge.networks.faces import FaceReader, smile, yaw
from r2m.forge.networks.network import Array
from r2m.forge.networks.stylegan import ReadOut, StyleGAN
from r2m.forge.registry import Face
from r2m.seeding import rng

log = logging.getLogger(__name__)

FACES = 600
# Ridge penalty of the inversion, and how far its latents are moved away from the mean: ridge shrinks them.
PENALTY, STRETCH = 3.0, 1.15
# A direction leads from the mean of the lowest to that of the highest part of the pool.
PART = 6


@dataclass(frozen=True)
class Pool:
    """The read-out of the network, and N random faces of it.

    Attributes:
        mean, kernel, bias: of the read-out.
        latents: (N, 512).
        descriptions: (N, D), as by `FaceReader.describe`.
        smiles, yaws, hair: (N,), the measures behind the directions.
    """

    mean: Array
    kernel: Array
    bias: Array
    latents: Array
    descriptions: Array
    smiles: Array
    yaws: Array
    hair: Array

    @functools.cached_property
    def read_out(self) -> ReadOut:
        """What the network needs to make images."""
        return ReadOut(self.mean, self.kernel, self.bias)

    @functools.cached_property
    def _regression(self) -> tuple[Array, Array, Array]:
        """Return the mean description (D,), the matrix (D, 512) and the mean latent (512,)."""
        centre, latent = self.descriptions.mean(axis=0), self.latents.mean(axis=0)
        rows = (self.descriptions - centre).astype(np.float64)
        kernel = rows @ rows.T + PENALTY * np.eye(len(rows))
        matrix = rows.T @ np.linalg.solve(kernel, (self.latents - latent).astype(np.float64))
        return centre, matrix.astype(np.float32), latent

    def inverted(self, description: Array) -> Array:
        """Return the latent (512,) of the face that looks as described: ridge regression, stretched."""
        centre, matrix, latent = self._regression
        step = np.float32(STRETCH) * ((description - centre) @ matrix)
        return (latent + step).astype(np.float32, copy=False)

    def direction(self, measure: str) -> Array:
        """Return the step (512,) from faces of a small to those of a large measure (smiles, yaws, hair)."""
        order = np.argsort(getattr(self, measure), kind="stable")
        count = len(order) // PART
        return self.latents[order[-count:]].mean(axis=0) - self.latents[order[:count]].mean(axis=0)


def build(folder: Path, detector: Path, embedder: Path, seed: int, threads: int) -> Pool:
    """Fit the network's read-out and make the pool; no photograph is needed."""
    fitted, explained = stylegan.fit(folder, seed)
    log.info("read-out of 128²: R² %.3f on %d further faces", explained, stylegan.TRIED_ON)
    network, reader = StyleGAN(folder, fitted), FaceReader(detector, embedder)

    def drawn(number: int) -> tuple[Array, Array, float, float, float] | None:
        latent = network.latent(rng(seed, "pool", str(number)))
        found = reader.find(network.image(latent))
        if found is None:
            return None
        measures = smile(found.landmarks), yaw(found.landmarks), brightness_of_hair(found)
        return latent, reader.describe(found), *measures

    faces = [made for made in thread_map(drawn, range(FACES), threads) if made is not None]
    log.info("%d of %d images of the pool show a face", len(faces), FACES)
    latents, descriptions, *measures = (np.array(column, np.float32) for column in zip(*faces, strict=True))
    return Pool(fitted.mean, fitted.kernel, fitted.bias, latents, descriptions, *measures)


def brightness_of_hair(face: Face) -> float:
    """Return how much brighter the band above the forehead is than the face, in grey levels."""
    grey = cv2.cvtColor(face.image, cv2.COLOR_BGR2GRAY)
    eyes, mouth, unit = axes(face.landmarks)
    left, right = (max(0, round(float(eyes[0]) + side * unit)) for side in (-0.7, 0.7))
    top, bottom = (max(0, round(float(eyes[1]) - height * unit)) for height in (1.5, 0.9))
    hair = grey[top : bottom + 1, left : right + 1]
    skin = grey[round(float(eyes[1])) : round(float(mouth[1])) + 1, left : right + 1]
    return float(hair.astype(np.float32).mean() - skin.astype(np.float32).mean())


def write(path: Path, pool: Pool) -> None:
    """Write a pool as safetensors, complete or not at all."""
    arrays = {field.name: np.ascontiguousarray(getattr(pool, field.name)) for field in fields(pool)}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary)


def read(path: Path) -> Pool:
    """Read a pool; raises R2MError where the file is missing or not one."""
    try:
        return Pool(**load_file(path))
    except (OSError, SafetensorError, TypeError) as error:
        raise R2MError(f"{path}: not a pool of a GAN's faces; run the workflow again: {error}") from error
