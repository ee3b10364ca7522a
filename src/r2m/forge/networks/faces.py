"""What a face looks like in numbers: the same for a photograph and for the face of a generator."""

import threading
from pathlib import Path

import cv2
import numpy as np

from r2m.data.align import Landmarks, similarity, template, transform
from r2m.data.detect import FaceDetector, FaceEmbedder
from r2m.data.images import Image
from r2m.forge.networks.network import Array
from r2m.forge.registry import Face

# Side of the small aligned picture, and the margin around the face on it.
PIXELS, MARGIN = 20, 1.1
# Weights of the embedding and of the landmarks beside the pixels, which have variance 1.
EMBEDDING_WEIGHT, LANDMARK_WEIGHT = 1.0, 15.0
LEAST_SCORE = 0.6


class FaceReader:
    """Finds faces and describes them; every thread has networks of its own."""

    def __init__(self, detector: Path, embedder: Path) -> None:
        self._models = detector, embedder
        self._local = threading.local()

    def find(self, image: Image) -> Face | None:
        """Return the largest face on the image, or None if there is no face."""
        landmarks = self._networks()[0].largest(image)
        return None if landmarks is None else Face(image, landmarks)

    def describe(self, face: Face) -> Array:
        """Return the description (D,) of a face: pixels, embedding and pose.

        All three are taken after alignment, so that the place of the face on the image is no matter.
        """
        image, landmarks, embedding = face.image, face.landmarks, face.embedding
        if not len(embedding):
            embedding = self._networks()[1].embed(image, landmarks)
        matrix = similarity(landmarks, template(PIXELS, MARGIN))
        grown = similarity(landmarks, template(4 * PIXELS, MARGIN))
        aligned = cv2.warpAffine(image, grown, (4 * PIXELS,) * 2, borderMode=cv2.BORDER_REFLECT_101)
        small = cv2.resize(aligned, (PIXELS,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        pixels = (small - small.mean()) / max(float(small.std()), 1.0)
        pose = (transform(landmarks, matrix) - template(PIXELS, MARGIN)).ravel() / PIXELS
        scaled = (pixels / PIXELS, EMBEDDING_WEIGHT * embedding, LANDMARK_WEIGHT * pose)
        return np.concatenate(scaled).astype(np.float32)

    def _networks(self) -> tuple[FaceDetector, FaceEmbedder]:
        if not hasattr(self._local, "networks"):
            detector, embedder = self._models
            self._local.networks = FaceDetector(detector, LEAST_SCORE), FaceEmbedder(embedder)
        return self._local.networks


def smile(landmarks: Landmarks) -> float:
    """Return the width of the mouth over the distance of the eyes."""
    eyes, mouth = landmarks[1] - landmarks[0], landmarks[4] - landmarks[3]
    return float(np.linalg.norm(mouth) / max(float(np.linalg.norm(eyes)), 1.0))


def yaw(landmarks: Landmarks) -> float:
    """Return how far the nose lies beside the middle of the eyes, over the distance of the eyes."""
    across = (landmarks[1] - landmarks[0]).astype(np.float64)
    aside = landmarks[2] - landmarks[:2].mean(axis=0)
    return float(aside @ across / max(float(across @ across), 1.0))
