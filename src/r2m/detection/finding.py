"""Faces of a file: of a photograph, or of frames that are spread over a video."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from r2m.data.align import Landmarks, similarity
from r2m.data.faces import AlignedFace, Aligner, Settings
from r2m.data.images import MOST_OBLONG, Image, encode, is_jpeg, read_image, read_square, resized
from r2m.data.listing import is_video
from r2m.data.options import FacesOptions
from r2m.data.sources import verify
from r2m.errors import R2MError
from r2m.models.config import DetectorConfig
from r2m.video.decode import Video
from r2m.video.sample import spread
from r2m.video.track import Boxes, by_area, least_frames, tracks

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PlacedFace(AlignedFace):
    """An aligned face, and the transform (2, 3) from pixels of the image to those of the crop."""

    matrix: Matrix


# No part of `Aligner`, since all that a workflow made of that would have to be made again.
class PlacingAligner(Aligner):
    """An aligner whose faces are `PlacedFace`."""

    def _placed(self, image: Image, points: Landmarks) -> PlacedFace:
        face = super()._placed(image, points)
        return PlacedFace(face.crop, face.landmarks, face.chip, similarity(points, face.landmarks))

    def _whole(self, image: Image) -> PlacedFace:
        face = super()._whole(image)
        matrix = scaling(image.shape[1], image.shape[0], face.crop.shape[0])
        return PlacedFace(face.crop, face.landmarks, face.chip, matrix)


def scaling(width: int, height: int, size: int) -> Matrix:
    """Return the transform (2, 3) of pixels of a whole image to those of a square of `size`."""
    x, y = size / width, size / height
    # Pixel centres lie at whole numbers: x' = (x + ½) r − ½.
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])


@dataclass(frozen=True)
class Face:
    """A face as the detector takes it.

    Attributes:
        crop: the aligned face, BGR (S, S, 3), encoded like the images of training.
        box: left edge, top edge, width and height in pixels of the photograph or frame.
        number: whose face it is: 0 is the largest of a photograph, or the largest track of a video.
        matrix: (2, 3), from pixels of the photograph or frame to those of the crop.
        seconds: when the frame is shown; None on a photograph.
        frame: the frame's number; None on a photograph.
    """

    crop: Image
    box: tuple[int, int, int, int]
    number: int
    matrix: Matrix
    seconds: float | None = None
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class HeldImage:
    """A photograph in memory, or an aligned crop.

    Attributes:
        path: a name that stands for its path.
        image: BGR (H, W, 3), None where it cannot be taken.
        is_jpeg: whether it was read from a JPEG of its size.
        reason: why it cannot be taken.
    """

    path: Path
    image: Image | None = None
    is_jpeg: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """What was seen in a file: its faces, by number and time, or the `reason` why there is none."""

    path: Path
    faces: list[Face] = field(default_factory=list)
    reason: str = ""


class FaceFinder:
    """Finds and aligns faces as a detector wants them; every thread has networks of its own.

    `model` is YuNet's ONNX file; without it images are aligned crops already. With `every` all faces are
    taken, otherwise the largest; at most `frames` of a video are looked at.

    Every crop is encoded once, as the last step of making an image of training is: JPEGs of the size of the
    input have been, all others are resized and encoded here. For a detector that was trained on images that
    were not, crops are resized alone.
    """

    def __init__(self, config: DetectorConfig, model: Path | None, *, every: bool, frames: int) -> None:
        """Load nothing yet.

        Raises:
            R2MError: `every` is no truth value, or `frames` no number from 1 on.
        """
        if not isinstance(every, bool):
            raise R2MError(f"every={every!r}; expected True, for every face, or False, for the largest")
        if isinstance(frames, bool) or not isinstance(frames, int | np.integer) or frames < 1:
            raise R2MError(f"frames={frames!r}; expected how many frames of a video are looked at, 1 or more")
        options = FacesOptions(crop_size=config.crop_size, margin=config.margin)
        self._crop_size, self._size, self._quality = config.crop_size, config.image_size, config.jpeg_quality
        self._every, self._frames = every, frames
        self._is_aligned = model is None
        self._aligner = PlacingAligner(Settings(options, config.image_size, seed=0, detector=model))

    def __call__(self, given: Path | HeldImage) -> Seen:
        """Return the faces of a photograph or video, or why there is none."""
        path = given.path if isinstance(given, HeldImage) else given
        try:
            if isinstance(given, HeldImage):
                return Seen(path, self._in_memory(given))
            if path.exists() and not path.is_file():  # to open a pipe would wait for who writes into it
                return Seen(path, reason="cannot be read: no regular file")
            return Seen(path, self._in_video(path) if is_video(path) else self._in_photograph(path))
        except (ValueError, R2MError) as error:
            return Seen(path, reason=str(error).removeprefix(f"{path}: "))
        except cv2.error as error:  # OpenCV rejects some unusual shapes
            return Seen(path, reason=f"cannot be aligned: {error.err}")
        except OSError as error:
            return Seen(path, reason=f"cannot be read: {error.strerror or error}")

    def _in_photograph(self, path: Path) -> list[Face]:
        if self._is_aligned:  # read as the workflow scores it
            return [self._whole(read_square(path, self._size), is_jpeg(path, self._size))]
        return self._faces_on(read_image(path)[0])

    def _in_memory(self, held: HeldImage) -> list[Face]:
        """Return the faces of an image in memory; raises ValueError where there is none."""
        if held.image is None:
            raise ValueError(held.reason)
        if not self._is_aligned:
            return self._faces_on(held.image)
        height, width = held.image.shape[:2]
        if max(height, width) > MOST_OBLONG * min(height, width):
            raise ValueError(f"no aligned crop: {width}×{height} pixels, expected about a square")
        return [self._whole(held.image, held.is_jpeg and (height, width) == (self._size, self._size))]

    def _whole(self, crop: Image, is_encoded: bool) -> Face:
        """Return an aligned crop as a face."""
        size = self._size
        taken = crop if is_encoded else self._encoded(crop)
        return Face(taken, (0, 0, size, size), 0, scaling(size, size, size))

    def _faces_on(self, image: Image) -> list[Face]:
        """Return the faces on a photograph; raises ValueError where there is none."""
        boxes, faces = self._aligner.every(image)
        largest = np.argsort(-boxes[:, 2:].prod(axis=1), kind="stable")
        taken = largest if self._every else largest[:1]
        return [
            Face(self._encoded(faces[place].crop), _pixels(boxes[place]), number, self._matrix(faces[place]))
            for number, place in enumerate(taken)
        ]

    def _in_video(self, path: Path) -> list[Face]:
        """Return the faces of tracks that last; raises ValueError where there is none."""
        frames: list[int] = []
        seconds: list[float] = []
        boxes: list[Boxes] = []
        crops: list[list[Image]] = []
        matrices: list[list[Matrix]] = []
        with Video(path) as video:
            for number, image in video.frames(spread(len(video), self._frames)):
                places, faces = self._on_frame(image)
                frames.append(number)
                seconds.append(video.seconds(number))
                boxes.append(places)
                crops.append([self._encoded(face.crop) for face in faces])
                matrices.append([self._matrix(face) for face in faces])
        if not any(crops):
            raise ValueError(f"no face found: none of {len(boxes)} frames")
        least = least_frames(len(boxes))
        lasting = [track for track in by_area(tracks(boxes, seconds), boxes) if len(track) >= least]
        if not lasting:
            raise ValueError(f"no face lasts: none is on {least} of {len(boxes)} frames")
        return [
            Face(
                crops[seen][place],
                _pixels(boxes[seen][place]),
                number,
                matrices[seen][place],
                seconds[seen],
                frames[seen],
            )
            for number, track in enumerate(lasting if self._every else lasting[:1])
            for seen, place in track
        ]

    def picture(self, path: Path, face: Face) -> Image:
        """Return the photograph or frame that a face was seen on, read again: BGR (H, W, 3).

        Raises:
            R2MError: it cannot be read any more.
        """
        try:
            if face.frame is not None:
                with Video(path) as video:
                    return next(image for _, image in video.frames([face.frame]))
            return read_square(path, self._size) if self._is_aligned else read_image(path)[0]
        except ValueError as error:
            raise R2MError(f"{path}: {error}, though a face was seen on it") from error

    def _matrix(self, face: AlignedFace) -> Matrix:
        """Return the transform (2, 3) to pixels of the crop at the size of the input."""
        assert isinstance(face, PlacedFace)
        resizing = scaling(self._crop_size, self._crop_size, self._size)
        return resizing[:, :2] @ face.matrix + np.column_stack([np.zeros((2, 2)), resizing[:, 2]])

    def _on_frame(self, image: Image) -> tuple[Boxes, list[AlignedFace]]:
        try:
            return self._aligner.every(image)
        except ValueError:
            return np.empty((0, 4), np.float32), []

    def _encoded(self, crop: Image) -> Image:
        """Return a crop as an image of training is read: of the input's size, and encoded if those were."""
        if self._quality is None:
            return resized(crop, self._size)
        content = encode(crop, self._size, (self._quality, self._quality), default_rng(0))
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded.astype(np.uint8, copy=False)


def face_network(folder: Path) -> Path:
    """Return the face detector's file in a folder, checked against what was fetched.

    Raises:
        R2MError: there is none, or it is damaged.
    """
    network = folder / "yunet.onnx"
    if not network.is_file():
        raise R2MError(
            f"{network}: no such file; expected the face detector, which `r2m job source faces` fetches,"
            " or --aligned for crops"
        )
    receipt = folder.with_name(f"{folder.name}.json")
    if receipt.is_file():
        verify(receipt)
    return network


def _pixels(box: NDArray[np.float32]) -> tuple[int, int, int, int]:
    left, top, width, height = (round(float(value)) for value in box)
    return left, top, width, height
