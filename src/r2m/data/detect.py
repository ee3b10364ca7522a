"""Face detection (YuNet) and face embeddings (SFace), both run by OpenCV."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from r2m.data.align import Landmarks
from r2m.data.images import Image
from r2m.errors import R2MError

Embedding = NDArray[np.float32]

SMALL, LARGE = 320, 640


def attempts(height: int, width: int) -> Iterator[tuple[float, float]]:
    """Yield (scale, border) in the order in which they are tried on an image of this size.

    Small images are enlarged twice, large ones shrunk to `LARGE` pixels; then other scales, and a border
    that is a share of the longer side, for faces that fill the image.
    """
    longer = max(height, width)
    first = 2.0 if longer < SMALL else min(1.0, LARGE / longer)
    for factor in (1.0, 0.5, 1.5):
        yield first * factor, 0.0
    yield first, 0.3


@dataclass(frozen=True)
class Detections:
    """The N faces found on one image, in its pixels.

    Attributes:
        boxes: (N, 4) of left edge, top edge, width, height.
        landmarks: (N, 5, 2).
        scores: (N,) between the detector's threshold and 1.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]


class FaceDetector:
    """YuNet behind a score threshold. Not safe to share between threads."""

    def __init__(self, model: Path, min_score: float) -> None:
        require(model, "detector")
        self._net = cv2.FaceDetectorYN.create(str(model), "", (SMALL, SMALL), min_score)

    def largest(self, image: Image) -> Landmarks | None:
        """Return the landmarks (5, 2) of the largest face in image pixels, or None if there is no face."""
        faces, scale, pad = self._first(image)
        if not len(faces):
            return None
        row = faces[np.argmax(faces[:, 2] * faces[:, 3])]
        return (row[4:14].reshape(5, 2) / scale - pad).astype(np.float32)

    def every(self, image: Image) -> Detections:
        """Return all faces of the first attempt that finds any; of those, `largest` is the largest."""
        faces, scale, pad = self._first(image)
        points = (faces[:, 4:14].reshape(-1, 5, 2) / scale - pad).astype(np.float32)
        boxes = (faces[:, :4] / scale - (pad, pad, 0, 0)).astype(np.float32)
        return Detections(boxes, points, faces[:, 14])

    def _first(self, image: Image) -> tuple[NDArray[np.float32], float, int]:
        """Return YuNet's rows (N, 15) of the first attempt with a face, its scale, and its border."""
        height, width = image.shape[:2]
        for scale, border in attempts(height, width):
            pad = round(border * max(height, width))
            if min(height + 2 * pad, width + 2 * pad) * scale < 1:
                continue
            padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE) if pad else image
            faces = self._detect(cv2.resize(padded, None, fx=scale, fy=scale, interpolation=_kernel(scale)))
            if faces is not None:
                return faces, scale, pad
        return np.empty((0, 15), np.float32), 1.0, 0

    def _detect(self, image: cv2.typing.MatLike) -> NDArray[np.float32] | None:
        self._net.setInputSize((image.shape[1], image.shape[0]))
        faces = self._net.detect(image)[1]
        return None if faces is None else faces.astype(np.float32, copy=False)


class FaceEmbedder:
    """SFace. Not safe to share between threads."""

    def __init__(self, model: Path) -> None:
        require(model, "embedder")
        self._net = cv2.FaceRecognizerSF.create(str(model), "")

    def embed(self, image: Image, landmarks: Landmarks) -> Embedding:
        """Return the embedding (D,) of unit length of the face at `landmarks` (5, 2)."""
        return self.embed_chip(self.chip(image, landmarks))

    def chip(self, image: Image, landmarks: Landmarks) -> Image:
        """Return what the network sees of the face at `landmarks` (5, 2): (112, 112, 3)."""
        row = np.zeros((1, 15), dtype=np.float32)
        row[0, 4:14] = landmarks.ravel()
        return self._net.alignCrop(image, row).astype(np.uint8, copy=False)

    def embed_chip(self, chip: Image) -> Embedding:
        """Return the embedding (D,) of unit length of a face that `chip` returned."""
        feature = self._net.feature(chip).ravel().astype(np.float32)
        return feature / max(float(np.linalg.norm(feature)), 1e-12)


def require(model: Path, role: str) -> None:
    """Raise R2MError if the model file of the face `role` is missing."""
    if not model.is_file():
        raise R2MError(f"{model}: no such face {role}; set faces.detector in params.yaml")


def _kernel(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
