"""Fast style transfer (Ghiasi et al., arXiv 1705.06830): an image in the style of another one."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from r2m.data.images import Image
from r2m.forge.geometry import to_uint8
from r2m.forge.networks.network import Array, Network

# Side of the image whose style is taken, as the network has it, and of the image that is drawn.
STYLE_SIDE, SIDE = 256, 192


class StyleTransfer:
    """The two networks; threads may share them."""

    def __init__(self, folder: Path) -> None:
        self._style = Network(folder / "arbitrary_predict.onnx")
        self._transform = Network(folder / "arbitrary_transform.onnx", _smaller)

    def __call__(self, image: Image, style: Image) -> Image:
        """Return a BGR `image` (S, S, 3) in the style of another one, in its own size."""
        (code,) = self._style(_batch(style, STYLE_SIDE))
        (drawn,) = self._transform(_batch(image, SIDE), code)
        size = image.shape[0]
        kernel = cv2.INTER_AREA if size < SIDE else cv2.INTER_CUBIC
        return to_uint8(255 * cv2.resize(drawn[0][:, :, ::-1], (size, size), interpolation=kernel))


def _batch(image: Image, side: int) -> Array:
    """Return a BGR image as RGB (1, side, side, 3) in [0, 1]."""
    kernel = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_CUBIC
    resized = cv2.resize(image, (side, side), interpolation=kernel)
    return np.ascontiguousarray(resized[None, :, :, ::-1], np.float32) / np.float32(255)


def _smaller(model: Any) -> Any:
    shapes = {model.input(0): [1, SIDE, SIDE, 3], model.input(1): [1, 1, 1, 100]}
    model.reshape(shapes)
    return model
