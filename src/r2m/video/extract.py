"""Faces of videos: sampled, found, tracked, aligned and written; what is done is kept until all is."""

import json
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
import pandas as pd
from blake3 import blake3
from tqdm import tqdm

from r2m.data.align import Landmarks
from r2m.data.detect import Embedding
from r2m.data.faces import LANDMARK_COLUMNS, Aligner, Settings, thread_map, write_encoded
from r2m.data.images import read_crop, write_png
from r2m.data.intake import Skipped
from r2m.digest import code_digest
from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.video.decode import Video
from r2m.video.sample import spread
from r2m.video.track import Boxes, Track, by_area, least_frames, tracks

COLUMNS = ("image_id", "file", "video", "frame", "track", "digest", "landmarks", "embedding")

CHIPS = "chips"


@dataclass(frozen=True)
class VideoFile:
    """A video and its name, which no other has and which becomes the folder of its frames."""

    path: Path
    name: str


@dataclass(frozen=True)
class VideoOptions:
    """What is taken of a video, and how it is written.

    Attributes:
        frames: at most so many frames, spread evenly over all of it; None: all frames.
        faces: `largest`, the one tracked face with the largest sum of areas; `all`, every face that is
            tracked through enough frames.
        encode: `jpeg`, as all other images; `none`, the lossless crop.
    """

    frames: int | None
    faces: Literal["largest", "all"]
    encode: Literal["none", "jpeg"]


@dataclass(frozen=True)
class VideoFaces:
    """The faces found in videos.

    Attributes:
        table: one row a face: image_id, file (relative to the folder of images), video, frame, track, digest
            (of the video file), landmarks (5, 2) in crop pixels, embedding (D,); by video, track and frame.
        skipped: (path, reason), one row a video that gave nothing.
    """

    table: pd.DataFrame
    skipped: Skipped = field(default_factory=list)


@dataclass(frozen=True)
class _Face:
    """A face of one frame, whose crop lies in the file `crop`."""

    frame: int
    track: int
    crop: str
    landmarks: Landmarks
    embedding: Embedding


def extract_videos(
    videos: Sequence[VideoFile],
    settings: Settings,
    options: VideoOptions,
    prefix: str,
    images: Path,
    crops: Path | None,
    state: Path,
) -> VideoFaces:
    """Find, track, align and write the faces of videos; name them `prefix`/NAME/FRAME.

    With `faces: all` a track is called as a video of its own, `prefix`/NAME/trackK/FRAME, K from 0 for the
    largest. Images go below the folder `images`, lossless crops below `crops` if it is given. The crops of
    each video are kept in the folder `state` under a digest of its bytes and of all that they depend on, and
    are taken from there by later calls, also after a kill; the caller deletes `state`. It is for one process
    at a time.

    Raises:
        R2MError: two videos of one name, or a missing model.
    """
    _check_names(videos)
    aligner = Aligner(settings)
    made_by = _made_by(settings, options)
    locks: dict[str, threading.Lock] = {}

    def faces_of(video: VideoFile) -> list[dict[str, object]] | str:
        try:
            digest = _digest(video.path)
            key = blake3(json.dumps([digest, made_by]).encode()).hexdigest(length=16)
            # Of copies of a video, the first is read and the others wait for it.
            with locks.setdefault(key, threading.Lock()):
                kept = state / key
                faces = _read_faces(kept)
                if faces is None:
                    with atomic_path(kept) as folder:
                        faces = _write_faces(video.path, folder, aligner, options)
        except ValueError as error:
            return str(error)
        return (
            faces if isinstance(faces, str) else [written(face, kept, video.name, digest) for face in faces]
        )

    def written(face: _Face, kept: Path, name: str, digest: str) -> dict[str, object]:
        shown = f"{name}/track{face.track}" if options.faces == "all" else name
        stem = f"{shown}/{face.frame:06d}"
        image_id = f"{prefix}/{stem}"
        crop = kept / face.crop
        if crops is not None:
            _link(crop, crops / f"{stem}.png")
        file = f"{stem}.png" if options.encode == "none" else f"{stem}.jpg"
        if options.encode == "none":
            _link(crop, images / file)
        else:
            write_encoded(images / file, read_crop(crop), image_id, settings)
        values = (image_id, file, shown, face.frame, face.track, digest, face.landmarks, face.embedding)
        return dict(zip(COLUMNS, values, strict=True))

    rows: list[dict[str, object]] = []
    skipped: Skipped = []
    with tqdm(total=len(videos), desc=prefix, unit="video", disable=None) as progress:
        results = thread_map(faces_of, videos, settings.threads)
        for video, result in zip(videos, results, strict=True):
            if isinstance(result, str):
                skipped.append((video.path.as_posix(), result))
            else:
                rows += result
            progress.update()
    return VideoFaces(pd.DataFrame(rows, columns=list(COLUMNS)), skipped)


def _check_names(videos: Sequence[VideoFile]) -> None:
    """Raise R2MError for two videos of one name."""
    path_of: dict[str, Path] = {}
    for video in videos:
        if (path := path_of.setdefault(video.name, video.path)) is not video.path:
            raise R2MError(f"{path} and {video.path}: two videos of the name {video.name!r}; expected one")


def _made_by(settings: Settings, options: VideoOptions) -> dict[str, object]:
    """Return all that the crops of a video depend on besides the video."""
    chosen = settings.options
    return {
        "frames": options.frames,
        "faces": options.faces,
        "crop_size": chosen.crop_size,
        "margin": chosen.margin,
        "min_score": chosen.min_score,
        "detector": settings.detector and _digest(settings.detector),
        "embedder": settings.embedder and _digest(settings.embedder),
        "code": code_digest([f"{__name__}:_write_faces", "r2m.data.faces:Aligner"]),
        "libraries": [av.__version__, av.ffmpeg_version_info, cv2.__version__],
    }


def _digest(path: Path) -> str:
    """Return the digest of a file's bytes; raises ValueError for one that cannot be read."""
    try:
        with open(path, "rb"):  # whose errors say more
            return blake3(max_threads=1).update_mmap(path).hexdigest()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _write_faces(path: Path, folder: Path, aligner: Aligner, options: VideoOptions) -> list[_Face] | str:
    """Make `folder` with the crops of a video's faces as PNG and their table, or the reason for none.

    Return what was written. A video that gives none is a result like another, and is not read again either.
    """
    folder.mkdir()
    try:
        faces = _faces(path, folder, aligner, options)
    except ValueError as error:
        (folder / "reason.txt").write_text(str(error), encoding="utf-8")
        return str(error)
    landmarks = np.stack([face.landmarks for face in faces]).reshape(len(faces), 10)
    table = pd.DataFrame(landmarks, columns=list(LANDMARK_COLUMNS))
    table["embedding"] = pd.Series([face.embedding for face in faces], dtype=object)
    for column in ("frame", "track", "crop"):
        table[column] = [getattr(face, column) for face in faces]
    table.to_parquet(folder / "faces.parquet", index=False)
    used = {face.crop for face in faces}
    for crop in folder.glob("*.png"):
        if crop.name not in used:
            crop.unlink()
    shutil.rmtree(folder / CHIPS, ignore_errors=True)
    return faces


def _read_faces(folder: Path) -> list[_Face] | str | None:
    """Return what `_write_faces` returned; None if it did not, or a crash of the machine left files empty."""
    with suppress(OSError):
        if reason := (folder / "reason.txt").read_text(encoding="utf-8"):
            return reason
    try:
        table = pd.read_parquet(folder / "faces.parquet")
        if not all((folder / crop).stat().st_size for crop in table["crop"]):
            return None
    except (OSError, ValueError):
        return None
    points = table[list(LANDMARK_COLUMNS)].to_numpy(dtype=np.float32).reshape(-1, 5, 2)
    columns = (table["frame"].tolist(), table["track"].tolist(), table["crop"], points, table["embedding"])
    return [_Face(*values) for values in zip(*columns, strict=True)]


def _faces(path: Path, folder: Path, aligner: Aligner, options: VideoOptions) -> list[_Face]:
    """Return the faces of the chosen tracks of a video, by track and frame; their crops are in `folder`.

    What is cut out of frames goes to the disk at once, so that memory does not grow with their number, and
    only faces of the chosen tracks are embedded, which takes longer than to find them.

    Raises:
        ValueError: a damaged video, no face, or none in enough frames.
    """
    numbers: list[int] = []
    seconds: list[float] = []
    boxes: list[Boxes] = []
    landmarks: list[list[Landmarks]] = []
    objection = "no face found"
    with Video(path) as video:
        for number, image in video.frames(spread(len(video), options.frames)):
            try:
                places, faces = aligner.every(image)
            except ValueError as error:
                objection, places, faces = str(error), np.empty((0, 4), np.float32), []
            except cv2.error as error:  # OpenCV rejects some unusual shapes
                raise ValueError(f"cannot be aligned: {error.err}") from error
            numbers.append(number)
            seconds.append(video.seconds(number))
            boxes.append(places)
            landmarks.append([face.landmarks for face in faces])
            for place, face in enumerate(faces):
                name = _crop_name(number, place)
                write_png(folder / name, face.crop)
                if face.chip is not None:
                    write_png(folder / CHIPS / name, face.chip)
    if not any(landmarks):
        raise ValueError(f"{objection}: none of {len(numbers)} frames")

    def embedding(crop: str) -> Embedding:
        chip = folder / CHIPS / crop
        return aligner.embed(read_crop(chip) if chip.is_file() else None)

    chosen = _chosen(tracks(boxes, seconds), boxes, options)
    names = [[_crop_name(numbers[frame], face) for frame, face in track] for track in chosen]
    return [
        _Face(numbers[frame], place, name, landmarks[frame][face], embedding(name))
        for place, track in enumerate(chosen)
        for (frame, face), name in zip(track, names[place], strict=True)
    ]


def _chosen(found: Sequence[Track], boxes: Sequence[Boxes], options: VideoOptions) -> list[Track]:
    """Return the tracks to take; raises ValueError if none is of enough frames."""
    least = least_frames(len(boxes))
    long = [track for track in by_area(found, boxes) if len(track) >= least]
    if not long:
        longest = max(map(len, found))
        raise ValueError(f"a face in too few frames: {longest} of {len(boxes)}, expected {least} or more")
    return long if options.faces == "all" else long[:1]


def _crop_name(frame: int, face: int) -> str:
    return f"{frame:06d}-{face}.png"


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where there are no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
