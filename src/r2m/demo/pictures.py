"""Pictures as the page shows them: data URLs, and faces with their maps of relevance."""

from base64 import b64encode
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from r2m.data.images import Image
from r2m.detection.explaining import relevance_maps
from r2m.detection.finding import Face, Matrix
from r2m.detection.overlay import overlaid
from r2m.models.image_detector import ImageDetector

# Longer side of a face with its map, in pixels.
SIDE = 448
# What is seen of the picture on each side of the crop, as a share of the crop.
BORDER = 0.1


def data_url(image: Image) -> str:
    """Return a BGR image as a data URL with a JPEG."""
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return f"data:image/jpeg;base64,{b64encode(content).decode()}"


def maps(picture: Image, faces: Sequence[Face], detector: ImageDetector) -> Iterator[tuple[int, Image]]:
    """Yield number and map of each face, laid over the part of the picture, BGR (H, W, 3), that it is on.

    Raises:
        R2MError: the detector's backbone has no maps.
    """
    rgb = [np.ascontiguousarray(face.crop[..., ::-1]) for face in faces]
    for face, relevance in zip(faces, relevance_maps(detector, rgb), strict=True):
        part, matrix = around(picture, face.matrix, len(relevance))
        yield face.number, overlaid(part, relevance, matrix)


def around(picture: Image, matrix: Matrix, size: int) -> tuple[Image, Matrix]:
    """Return the part of a picture that a crop of `size` was cut from, with a border, and a transform (2, 3).

    The longer side of the part has `SIDE` pixels. `matrix` (2, 3) leads from pixels of the picture to those
    of the crop, and what is returned from those of the part.
    """
    # Pixel centres lie at whole numbers.
    edges = size * np.array([-BORDER, 1 + BORDER]) - 0.5
    corners = np.array([[x, y, 1] for x in edges for y in edges]) @ cv2.invertAffineTransform(matrix).T
    whole = np.array([picture.shape[1], picture.shape[0]])
    first = np.clip(np.floor(corners.min(axis=0)), 0, whole - 1).astype(int)
    end = np.clip(np.ceil(corners.max(axis=0)) + 1, first + 1, whole).astype(int)
    part = picture[first[1] : end[1], first[0] : end[0]]
    width, height = np.maximum(1, np.rint((end - first) * SIDE / (end - first).max())).astype(int).tolist()
    is_smaller = (end - first).max() > SIDE
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    resized = cv2.resize(part, (width, height), interpolation=interpolation)
    # x of the picture = (x' + ½) rate − ½ + the first column
    rate = (end - first) / [width, height]
    linear = matrix[:, :2] * rate
    shift = matrix[:, :2] @ (rate / 2 - 0.5 + first) + matrix[:, 2]
    return resized.astype(np.uint8, copy=False), np.column_stack([linear, shift])
