"""DCGAN (Radford et al., arXiv 1511.06434) trained on synthetic faces of DigiFace-1M: crude faces of 64²."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from r2m.data.images import Image
from r2m.errors import R2MError
from r2m.forge.networks.stylegan import picture

if TYPE_CHECKING:
    from torch import nn

NOISE, WIDTH, SIDE = 100, 64, 64


class DCGAN:
    """The generator; threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Read the weights, without unpickling anything else; raises R2MError if they are not its own."""
        import torch

        self._network = _generator()
        path = folder / "weights.tar"
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            state = {name.removeprefix("main."): value for name, value in content["netG_state_dict"].items()}
            self._network.load_state_dict(state)
        except Exception as error:  # torch raises what it likes at damaged files
            raise R2MError(f"{path}: not the weights of the DCGAN: {error}") from error
        self._network.eval()

    def image(self, random: Generator) -> Image:
        """Return a random face as BGR (64, 64, 3)."""
        import torch

        noise = random.standard_normal((1, NOISE, 1, 1), dtype=np.float32)
        with torch.inference_mode():
            return picture(self._network(torch.from_numpy(noise))[0].numpy())


def _generator() -> "nn.Sequential":
    from torch import nn

    layers: list[nn.Module] = []
    channels, stride, padding = NOISE, 1, 0
    for following in (8 * WIDTH, 4 * WIDTH, 2 * WIDTH, WIDTH):
        layers += [
            nn.ConvTranspose2d(channels, following, 4, stride, padding, bias=False),
            nn.BatchNorm2d(following),
            nn.ReLU(),
        ]
        channels, stride, padding = following, 2, 1
    return nn.Sequential(*layers, nn.ConvTranspose2d(WIDTH, 3, 4, 2, 1, bias=False), nn.Tanh())
