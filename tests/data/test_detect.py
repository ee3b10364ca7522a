"""All faces of an image and the largest of them, of a network that is told what to find."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from r2m.data.detect import FaceDetector, attempts

Rows = NDArray[np.float32]


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FaceDetector]:
    """Return a function that makes a detector which finds `rows` on the given attempt."""

    def make(rows: Rows, attempt: int = 0) -> FaceDetector:
        made = FaceDetector.__new__(FaceDetector)
        tried = iter(range(99))
        monkeypatch.setattr(
            made, "_detect", lambda image: rows if next(tried) == attempt else None, raising=False
        )
        return made

    return make


def faces(*boxes: tuple[float, float, float, float]) -> Rows:
    rows = np.zeros((len(boxes), 15), np.float32)
    for row, (x, y, width, height) in zip(rows, boxes, strict=True):
        row[:4] = x, y, width, height
        row[4:14] = np.tile([x + width / 2, y + height / 2], 5)
        row[14] = 0.9 - x / 1000
    return rows


@pytest.mark.parametrize("attempt", [0, 1, 2, 3])
def test_every_face_is_in_pixels_of_the_image(detector: Callable[..., FaceDetector], attempt: int) -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    scale, border = list(attempts(720, 1280))[attempt]
    pad = round(border * 1280)
    rows = faces((200, 250, 40, 50), (300, 260, 60, 60))
    found = detector(rows, attempt).every(image)
    np.testing.assert_allclose(found.boxes[:, :2], rows[:, :2] / scale - pad, rtol=1e-5)
    np.testing.assert_allclose(found.boxes[:, 2:], rows[:, 2:4] / scale, rtol=1e-5)
    np.testing.assert_array_equal(found.scores, rows[:, 14])
    assert found.boxes.dtype == found.landmarks.dtype == np.float32
    largest = detector(rows, attempt).largest(image)
    np.testing.assert_array_equal(found.landmarks[1], largest)
    np.testing.assert_array_equal(largest, (rows[1, 4:14].reshape(5, 2) / scale - pad).astype(np.float32))


def test_no_face(detector: Callable[..., FaceDetector]) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    found = detector(faces(), attempt=9).every(image)
    assert (found.boxes.shape, found.landmarks.shape, found.scores.shape) == ((0, 4), (0, 5, 2), (0,))
    assert detector(faces(), attempt=9).largest(image) is None
