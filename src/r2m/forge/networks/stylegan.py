"""MobileStyleGAN (Belousov, arXiv 2104.04767) trained on FFHQ, cut short: a face takes a third of the time.

The synthesis network ends in blocks of 256² and 512², which take two thirds of its time and draw what faces
of some 112 pixels do not show. Here it is cut behind its block of 128². A linear read-out of 3 × 3 pixels,
fitted to images of the whole network, makes an image of 128² of what the block holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from r2m.data.images import Image
from r2m.forge.geometry import to_uint8
from r2m.forge.networks.network import Array, Network
from r2m.seeding import rng

LATENT = 512
# Side of the images, and channels of the block that they are read out of.
SIDE, CHANNELS = 128, 256
# Latents are moved towards their mean: fewer odd faces (Karras et al., arXiv 1812.04948, appendix B).
TRUNCATION = 0.8
MEAN_OF = 2000
# The read-out: faces that it is fitted on and tried on, positions taken of each, and the ridge penalty.
FITTED_ON, TRIED_ON, POSITIONS, PENALTY = 40, 8, 1500, 10.0


@dataclass(frozen=True)
class ReadOut:
    """What is fitted to the network once.

    Attributes:
        mean: (512,) of latents.
        kernel: (3, 256, 3, 3) of the linear read-out, RGB in [−1, 1].
        bias: (3,).
    """

    mean: Array
    kernel: Array
    bias: Array


class StyleGAN:
    """Faces of latents; threads may share it."""

    def __init__(self, folder: Path, fitted: ReadOut) -> None:
        self._mapping = Mapping(folder)
        self._features = Network(folder / "SynthesisNetwork.xml", _cut)
        self._fitted = fitted

    @property
    def mean(self) -> Array:
        """The mean latent (512,)."""
        return self._fitted.mean

    def latent(self, random: Generator) -> Array:
        """Return the latent (512,) of a random face."""
        return self.mean + TRUNCATION * (self._mapping(random) - self.mean)

    def image(self, latent: Array) -> Image:
        """Return the face of a `latent` (512,) as BGR (128, 128, 3)."""
        (features,) = self._features(latent[None])
        return picture(_read_out(features, self._fitted.kernel) + self._fitted.bias[:, None, None])


class Mapping:
    """The mapping network: latents of normal random numbers."""

    def __init__(self, folder: Path) -> None:
        self._network = Network(folder / "MappingNetwork.xml")

    def __call__(self, random: Generator) -> Array:
        """Return a latent (512,), not truncated."""
        (latent,) = self._network(random.standard_normal((1, LATENT), dtype=np.float32))
        return latent[0]


def picture(rgb: Array) -> Image:
    """Return RGB (3, S, S) in [−1, 1] as BGR (S, S, 3)."""
    return to_uint8(127.5 * (rgb[::-1].transpose(1, 2, 0) + 1))


def fit(folder: Path, seed: int) -> tuple[ReadOut, float]:
    """Fit the read-out to faces of the whole network; return it and its R² on further faces.

    Ridge regression from the 3 × 3 features around a pixel to its colour in the network's image, reduced to
    128² by the means of squares.
    """
    mapping = Mapping(folder)
    latents = np.stack([mapping(rng(seed, "mean", str(number))) for number in range(MEAN_OF)])
    mean: Array = latents.mean(axis=0)
    whole = Network(folder / "SynthesisNetwork.xml", _with_features)
    width = 9 * CHANNELS + 1
    square, product = np.zeros((width, width)), np.zeros((width, 3))
    residual, spread = 0.0, 0.0
    for number in range(FITTED_ON + TRIED_ON):
        random = rng(seed, "read-out", str(number))
        latent = mean + TRUNCATION * (mapping(random) - mean)
        features, colours = _pairs(whole(latent[None]), random)
        if number < FITTED_ON:
            square += features.T @ features
            product += features.T @ colours
            continue
        if number == FITTED_ON:
            weights = np.linalg.solve(square + PENALTY * np.eye(width), product)
        residual += float(((features @ weights - colours) ** 2).sum())
        spread += float(((colours - colours.mean(axis=0)) ** 2).sum())
    kernel = weights[:-1].T.reshape(3, CHANNELS, 3, 3).astype(np.float32)
    return ReadOut(mean, kernel, weights[-1].astype(np.float32)), 1 - residual / spread


def _pairs(outputs: list[Array], random: Generator) -> tuple[Array, Array]:
    """Return features (P, 2305) at random positions of one face, and the colours (P, 3) there."""
    features, image = outputs
    factor = image.shape[2] // SIDE
    halved = image[0].clip(-1, 1).reshape(3, SIDE, factor, SIDE, factor).mean(axis=(2, 4))
    places = random.choice(SIDE * SIDE, POSITIONS, replace=False)
    y, x = np.divmod(places, SIDE)
    padded = np.pad(features[0], ((0, 0), (1, 1), (1, 1)))
    around = [padded[:, y + dy, x + dx] for dy, dx in _offsets()]
    taken = np.stack(around, axis=1).reshape(9 * CHANNELS, POSITIONS).T
    return np.column_stack([taken, np.ones(POSITIONS, np.float32)]), halved[:, y, x].T


def _read_out(features: Array, kernel: Array) -> Array:
    """Return the correlation (3, S, S) of features (1, C, S, S), zero outside, with a kernel (3, C, 3, 3)."""
    channels, side = features.shape[1], features.shape[2]
    products = kernel.transpose(2, 3, 0, 1).reshape(27, channels) @ features.reshape(channels, side * side)
    result = np.zeros((3, side + 2, side + 2), np.float32)
    for (dy, dx), product in zip(_offsets(), products.reshape(9, 3, side, side), strict=True):
        result[:, 2 - dy : 2 - dy + side, 2 - dx : 2 - dx + side] += product
    return result[:, 1:-1, 1:-1]


def _offsets() -> Iterator[tuple[int, int]]:
    return ((dy, dx) for dy in range(3) for dx in range(3))


def _block(model: Any) -> Any:
    """Return the output of the last activation of the block of 128²."""
    shape = [1, CHANNELS, SIDE, SIDE]
    activations = [op for op in model.get_ordered_ops() if op.get_type_name() == "PRelu"]
    return [op for op in activations if list(op.output(0).shape) == shape][-1].output(0)


def _cut(model: Any) -> Any:
    import openvino

    return openvino.Model([_block(model)], model.get_parameters(), "features")


def _with_features(model: Any) -> Any:
    import openvino

    return openvino.Model([_block(model), model.output(0)], model.get_parameters(), "whole")
