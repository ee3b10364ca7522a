"""Drawn videos whose frames carry their numbers, drawn faces that move on them, and a detector of these."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from r2m.data import faces
from r2m.data.detect import Detections
from r2m.data.images import Image

BITS = 8
CODECS = {".mp4": "libx264", ".mov": "mpeg4", ".avi": "mpeg4", ".mkv": "libx264", ".webm": "libvpx-vp9"}
FAST = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
RED, GREEN = (40, 40, 220), (40, 200, 40)


def write_video(
    path: Path,
    pictures: Sequence[Image],
    *,
    codec: str | None = None,
    gop: int = 12,
    b_frames: int = 2,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Encode BGR pictures at 25 frames a second, or shown at `times` in ms."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = codec or CODECS[path.suffix]
    with av.open(path, "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25)
        stream.pix_fmt = "yuv420p"
        stream.options = FAST.get(codec, {}) | (options or {})
        stream.codec_context.gop_size = gop
        if codec in ("libx264", "mpeg4"):
            stream.codec_context.max_b_frames = b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        stream.height, stream.width = pictures[0].shape[:2]
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, 25) if times is None else Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def with_number(picture: Image, number: int) -> Image:
    """Write `number` into the top eighth of a picture, as blocks that compression cannot blur together."""
    height, width = picture.shape[0] // 8, picture.shape[1] // BITS
    for bit in range(BITS):
        picture[:height, bit * width : (bit + 1) * width] = 235 if number >> bit & 1 else 20
    return picture


def number_of(picture: Image) -> int:
    """Read the number that `with_number` wrote."""
    height, width = picture.shape[0] // 8, picture.shape[1] // BITS
    blocks = [
        picture[height // 4 : 3 * height // 4, bit * width + width // 4 : (bit + 1) * width - width // 4]
        for bit in range(BITS)
    ]
    return sum(1 << bit for bit, block in enumerate(blocks) if block.mean() > 128)


def numbered(count: int, width: int = 128, height: int = 96) -> list[Image]:
    """Draw noise that differs from frame to frame, with the frame's number."""
    return [
        with_number(np.random.default_rng(i).integers(60, 180, (height, width, 3)).astype(np.uint8), i)
        for i in range(count)
    ]


def two_faces(
    count: int, width: int = 256, height: int = 128, seen: Sequence[bool] | None = None
) -> list[Image]:
    """Draw a large red face that moves right and a small green one that moves left; `seen`: where red is."""
    pictures = []
    for i in range(count):
        picture = with_number(np.full((height, width, 3), 128, np.uint8), i)
        step = i * 40 // max(1, count - 1)
        if seen is None or seen[i]:
            cv2.circle(picture, (40 + step, 80), 24, RED, -1)
        cv2.circle(picture, (220 - step, 80), 14, GREEN, -1)
        pictures.append(picture)
    return pictures


def colour(image: Image) -> str:
    """Return which drawn face is in the middle of a crop."""
    green, red = image[image.shape[0] // 2, image.shape[1] // 2, 1:].astype(int)
    return "red" if red > green + 40 else "green" if green > red + 40 else "none"


@contextmanager
def disc_detector(folder: Path) -> Iterator[Path]:
    """Put `DiscDetector` in place of the face detector, and give the file of its model."""
    model = folder / "yunet.onnx"
    model.write_bytes(b"discs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "FaceDetector", DiscDetector)
        yield model


class DiscDetector:
    """Stands in for `FaceDetector`: a face is a red or green disc, its landmarks the template in its box."""

    def __init__(self, model: Path, min_score: float) -> None:
        pass

    def every(self, image: Image) -> Detections:
        boxes = [box for colour in (GREEN, RED) if (box := _disc(image, colour)) is not None]
        places = np.array(boxes, np.float32).reshape(-1, 4)
        points = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]], np.float32)
        return Detections(
            places, places[:, None, :2] + places[:, None, 2:] * points, np.ones(len(places), np.float32)
        )


def _disc(image: Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    near = np.abs(image.astype(int) - colour).max(axis=2) < 70
    rows, columns = np.nonzero(near)
    if len(rows) < 50:
        return None
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
