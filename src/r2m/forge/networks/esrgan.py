"""Real-ESRGAN (Wang et al., arXiv 2107.10833), the compact network: 4 times the size of an image."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from r2m.data.images import Image
from r2m.errors import R2MError
from r2m.forge.geometry import to_uint8
from r2m.forge.networks.network import Array

if TYPE_CHECKING:
    from torch import nn

FACTOR = 4
NAME = "realesr-animevideov3-x4"
# The network sees so many mirrored pixels around the image.
BORDER = 8
# What begins the weights of a convolution in half precision, in files of ncnn.
_HALF = 0x01306B47


class Upscaler:
    """The network; threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Read the network as ncnn writes it: layers as text (`.param`), weights beside (`.bin`).

        Raises:
            R2MError: the files are missing or are not those of this network.
        """
        from torch import nn

        path = folder / f"{NAME}.param"
        try:
            listed = [_layer(line) for line in path.read_text(encoding="utf-8").splitlines()[2:]]
            path = folder / f"{NAME}.bin"
            weights = _Weights(path.read_bytes())
            layers: list[nn.Module] = []
            for layer, channels, count in listed:
                if layer == "Convolution":
                    layers.append(_convolution(channels, count, weights))
                elif layer == "PReLU":
                    layers.append(_prelu(channels, weights))
        except (OSError, ValueError, ZeroDivisionError) as error:
            raise R2MError(f"{path}: not the weights of Real-ESRGAN: {error}") from error
        self._network = nn.Sequential(*layers, nn.PixelShuffle(FACTOR)).eval()

    def __call__(self, image: Image) -> Image:
        """Return a BGR image (H, W, 3) as (4 H, 4 W, 3)."""
        import torch
        from torch.nn.functional import interpolate

        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(image, *(BORDER,) * 4, cv2.BORDER_REFLECT_101)
        rgb = np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 255
        with torch.inference_mode():
            batch = torch.from_numpy(rgb)
            large = self._network(batch) + interpolate(batch, scale_factor=float(FACTOR))
        bgr = 255 * large[0].numpy()[::-1].transpose(1, 2, 0)
        edge = FACTOR * BORDER
        return to_uint8(bgr[edge : edge + FACTOR * height, edge : edge + FACTOR * width])


def _layer(line: str) -> tuple[str, int, int]:
    """Return kind, channels and number of weights of a layer, from a line `KIND NAME INPUTS OUTPUTS …`."""
    kind, _, inputs, outputs, *rest = line.split()
    options = dict(pair.split("=") for pair in rest[int(inputs) + int(outputs) :])
    return kind, int(options.get("0", 0)), int(options.get("6", 0))


class _Weights:
    """The numbers of an ncnn `.bin`, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def take(self, count: int, tagged: bool = False) -> Array:
        """Return the next `count` numbers; those of a convolution are `tagged` with their type."""
        if tagged:
            tag = int(np.frombuffer(self._content, np.uint32, 1, self._place)[0])
            self._place += 4
            if tag == _HALF:
                return self._numbers(np.dtype(np.float16), count, align=True)
            if tag != 0:
                raise ValueError(f"weights of the unknown type {tag:#x}")
        return self._numbers(np.dtype(np.float32), count)

    def _numbers(self, dtype: np.dtype, count: int, align: bool = False) -> Array:
        numbers = np.frombuffer(self._content, dtype, count, self._place).astype(np.float32)
        size = count * dtype.itemsize
        self._place += -(-size // 4) * 4 if align else size
        return numbers


def _convolution(channels: int, count: int, weights: _Weights) -> "nn.Conv2d":
    import torch
    from torch import nn

    layer = nn.Conv2d(count // channels // 9, channels, 3, padding=1)
    kernel = torch.from_numpy(weights.take(count, tagged=True).reshape(layer.weight.shape))
    layer.load_state_dict({"weight": kernel, "bias": torch.from_numpy(weights.take(channels))})
    return layer


def _prelu(channels: int, weights: _Weights) -> "nn.PReLU":
    import torch
    from torch import nn

    layer = nn.PReLU(channels)
    layer.load_state_dict({"weight": torch.from_numpy(weights.take(channels))})
    return layer
