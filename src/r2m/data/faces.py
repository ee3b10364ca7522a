"""From a folder of photographs and videos to aligned crops, encoded images, identities and splits."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m import manifest
from r2m.data import identity as identities
from r2m.data.align import Landmarks, align, template
from r2m.data.detect import Embedding, FaceDetector, FaceEmbedder, require
from r2m.data.images import MOST_OBLONG, Image, encode, read_image, write_png
from r2m.data.intake import Skipped, intake, reason_of
from r2m.data.listing import is_video
from r2m.data.naming import Shown, of_frame, person_of_folder, shown
from r2m.data.options import FacesOptions
from r2m.data.split import require_images, split_by_identity
from r2m.errors import R2MError
from r2m.files import atomic_path, discard
from r2m.seeding import rng

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

LANDMARK_COLUMNS = tuple(f"{axis}{point}" for point in range(5) for axis in "xy")


@dataclass(frozen=True)
class Settings:
    """How photographs become faces; `detector` None takes them as aligned crops already."""

    options: FacesOptions
    image_size: int
    seed: int
    detector: Path | None = None
    embedder: Path | None = None
    threads: int = 1


@dataclass
class Faces:
    """The faces found in one folder: N of them, in the order of their files.

    Attributes:
        image_id: names of the faces.
        file: their files, relative to the folder; frames of a video as if in a folder of its name.
        origin: the files that are there, of frames that of their video.
        sampling: which frames of a video were taken, in words; None where every image there is was.
        landmarks: (N, 5, 2) in crop pixels.
        embedding: (N, D) of unit length, or (N, 0) without an embedder.
        digest: of the files' bytes.
        skipped: (path, reason) of the files that gave no face.
    """

    image_id: list[str] = field(default_factory=list)
    file: list[Path] = field(default_factory=list)
    origin: list[Path] = field(default_factory=list)
    sampling: list[str | None] = field(default_factory=list)
    landmarks: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 5, 2), dtype=np.float32))
    embedding: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    digest: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=list)

    def drop(self, reasons: Mapping[int, str], source: Path) -> None:
        """Drop the faces at the indices of `reasons`; their files, of the folder `source`, are skipped."""
        self.skipped += once(((source / self.origin[i]).as_posix(), reason) for i, reason in reasons.items())
        kept = [i for i in range(len(self.file)) if i not in reasons]
        self.image_id = [self.image_id[i] for i in kept]
        self.file = [self.file[i] for i in kept]
        self.origin = [self.origin[i] for i in kept]
        self.sampling = [self.sampling[i] for i in kept]
        self.digest = [self.digest[i] for i in kept]
        self.landmarks, self.embedding = self.landmarks[kept], self.embedding[kept]

    def extend(self, other: "Faces") -> None:
        """Append the faces of `other`."""
        parts = [faces for faces in (self, other) if faces.file] or [self]
        self.landmarks = np.concatenate([faces.landmarks for faces in parts])
        self.embedding = np.concatenate([faces.embedding for faces in parts])
        self.image_id += other.image_id
        self.file += other.file
        self.origin += other.origin
        self.sampling += other.sampling
        self.digest += other.digest
        self.skipped += other.skipped


@dataclass(frozen=True)
class AlignedFace:
    """A crop, its landmarks (5, 2), and what the embedder sees of the face; None without an embedder."""

    crop: Image
    landmarks: Landmarks
    chip: Image | None


class VideoReader(Protocol):
    """What reads the faces of video files: `r2m.video.folder.read_videos`."""

    def __call__(
        self,
        source: Path,
        files: Sequence[Path],
        prefix: str,
        settings: Settings,
        frames: int,
        images: Path,
        crops: Path | None,
        state: Path,
    ) -> Faces:
        """Return the faces on at most `frames` frames of each of the `files`, written as by `extract`."""
        ...


class Aligner:
    """Turns photographs into aligned crops; every thread has networks of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local = threading.local()
        for model, role in ((settings.detector, "detector"), (settings.embedder, "embedder")):
            if model is not None:
                require(model, role)

    def __call__(self, image: Image) -> tuple[Image, Landmarks, Embedding]:
        """Return the crop, its landmarks (5, 2) and the face's embedding (D,), empty without an embedder.

        Raises:
            ValueError: there is no face.
        """
        if self._settings.detector is None:
            face = self._whole(image)
        else:
            points = self._detector().largest(image)
            if points is None:
                raise ValueError(self._no_face())
            face = self._placed(image, points)
        return face.crop, face.landmarks, self.embed(face.chip)

    def every(self, image: Image) -> tuple[NDArray[np.float32], list[AlignedFace]]:
        """Return all N faces and their boxes (N, 4): left edge, top edge, width, height in pixels.

        Raises:
            ValueError: there is no face.
        """
        if self._settings.detector is None:
            height, width = image.shape[:2]
            return np.array([[0, 0, width, height]], dtype=np.float32), [self._whole(image)]
        detections = self._detector().every(image)
        if not len(detections.boxes):
            raise ValueError(self._no_face())
        return detections.boxes, [self._placed(image, points) for points in detections.landmarks]

    def embed(self, chip: Image | None) -> Embedding:
        """Return the embedding (D,) of a face by its `chip`, empty without one."""
        embedder = self._embedder()
        return np.empty(0, np.float32) if chip is None or embedder is None else embedder.embed_chip(chip)

    def _no_face(self) -> str:
        return f"no face found with a score of {self._settings.options.min_score} or more"

    def _whole(self, image: Image) -> AlignedFace:
        """Return an image that is an aligned crop already; raises ValueError if it is far from a square."""
        height, width = image.shape[:2]
        if max(height, width) > MOST_OBLONG * min(height, width):
            raise ValueError(f"no aligned crop: {width}×{height} pixels, expected about a square")
        options = self._settings.options
        kernel = cv2.INTER_AREA if min(image.shape[:2]) > options.crop_size else cv2.INTER_CUBIC
        resized = cv2.resize(image, (options.crop_size, options.crop_size), interpolation=kernel)
        crop = resized.astype(np.uint8, copy=False)
        landmarks = template(options.crop_size, options.margin)
        return AlignedFace(crop, landmarks, self._chip(crop, landmarks))

    def _placed(self, image: Image, points: Landmarks) -> AlignedFace:
        """Return the face at the landmarks `points` (5, 2) of the image."""
        options = self._settings.options
        crop, landmarks = align(image, points, options.crop_size, options.margin)
        return AlignedFace(crop, landmarks, self._chip(image, points))

    def _chip(self, image: Image, points: Landmarks) -> Image | None:
        embedder = self._embedder()
        return None if embedder is None else embedder.chip(image, points)

    def _detector(self) -> FaceDetector:
        if not hasattr(self._local, "detector"):
            assert self._settings.detector is not None
            self._local.detector = FaceDetector(self._settings.detector, self._settings.options.min_score)
        return self._local.detector

    def _embedder(self) -> FaceEmbedder | None:
        if not hasattr(self._local, "embedder"):
            model = self._settings.embedder
            self._local.embedder = None if model is None else FaceEmbedder(model)
        return self._local.embedder


def thread_map(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`; OpenCV itself stays at one thread.

    OpenCV releases the interpreter's lock, so threads are enough. After an error nothing more is begun.
    """
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def extract(
    source: Path,
    files: Sequence[Path],
    prefix: str,
    settings: Settings,
    images: Path,
    crops: Path | None = None,
) -> Faces:
    """Align and encode the faces of `files` in the folder `source`; name them `prefix`/stem.

    The encoded images go below the folder `images`, the lossless crops below `crops` if it is given. A file
    that cannot be used is skipped and its reason kept.
    """
    aligner = Aligner(settings)

    def face_in(file: Path) -> tuple[Landmarks, Embedding, str] | str:
        stem = stem_of(file)
        try:
            image, digest = read_image(source / file)
            crop, landmarks, embedding = aligner(image)
        except ValueError as error:
            return str(error)
        except cv2.error as error:  # OpenCV rejects some unusual shapes
            return f"cannot be aligned: {error.err}"
        if crops is not None:
            write_png(crops / f"{stem}.png", crop)
        write_encoded(images / f"{stem}.jpg", crop, f"{prefix}/{stem}", settings)
        return landmarks, embedding, digest

    def first_usable(namesakes: Sequence[Path]) -> list[tuple[Landmarks, Embedding, str] | str]:
        results: list[tuple[Landmarks, Embedding, str] | str] = []
        for file in namesakes:
            results.append(face_in(file))
            if not isinstance(results[-1], str):
                break
        chosen = namesakes[len(results) - 1].as_posix()
        reason = f"named like another image but for the suffix: {chosen}"
        return results + [reason] * (len(namesakes) - len(results))

    groups = _by_stem(files)
    faces = Faces()
    landmarks, embeddings = [], []
    tried = zip(groups, thread_map(first_usable, groups, settings.threads), strict=True)
    for file, result in (pair for group, results in tried for pair in zip(group, results, strict=True)):
        if isinstance(result, str):
            faces.skipped.append(((source / file).as_posix(), result))
            continue
        faces.image_id.append(f"{prefix}/{stem_of(file)}")
        faces.file.append(file)
        faces.origin.append(file)
        faces.sampling.append(None)
        landmarks.append(result[0])
        embeddings.append(result[1])
        faces.digest.append(result[2])
    if landmarks:
        faces.landmarks, faces.embedding = np.stack(landmarks), np.stack(embeddings)
    if copies := len(faces.digest) - len(set(faces.digest)):
        log.warning(
            "%s: %d images are byte-identical to others of the same set: one person each", prefix, copies
        )
    return faces


def write_encoded(path: Path, crop: Image, image_id: str, settings: Settings) -> None:
    """Encode `crop` by the random stream of `image_id` and write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = rng(settings.seed, "encode", image_id)
    path.write_bytes(encode(crop, settings.image_size, settings.options.jpeg_quality, stream))


def report(name: str, images: int, skipped: Skipped) -> None:
    """Log how many images were used, and how many files were not for which reason."""
    log.info("%s: %d images used, %d files skipped", name, images, len(skipped))
    first: dict[str, str] = {}
    for path, reason in skipped:
        first.setdefault(reason_of(reason), f"{path}: {reason}")
    for reason, count in Counter(reason_of(reason) for _, reason in skipped).most_common():
        log.info("%s: skipped %d: %s; first: %s", name, count, reason, first[reason])


def report_videos(name: str, shows: Sequence[Shown]) -> None:
    """Log how many videos the images were taken to be of, for that is told from names alone."""
    images = Counter(show.video for show in shows if show.video is not None)
    if images:
        log.info(
            "%s: %d images are frames of %d videos by their names; `frames: false` if they are not",
            *(name, images.total(), len(images)),
        )


def once(skipped: Iterable[tuple[str, str]]) -> Skipped:
    """Return each (path, reason) once, in order: frames of a video stand for it together."""
    return list(dict.fromkeys(skipped))


def write_skipped(path: Path, skipped: Skipped) -> None:
    """Write skipped.csv: path, reason."""
    pd.DataFrame(list(skipped), columns=["path", "reason"]).to_csv(path, index=False)


def build_domain(
    name: str,
    images: Path,
    role: str,
    identity: str,
    limit: int | None,
    settings: Settings,
    out: Path,
    frames: bool | None = None,
    frames_per_video: int = 8,
    read_videos: VideoReader | None = None,
) -> None:
    """Write the image set of one domain of real photographs into the folder `out`, complete or not at all.

    Args:
        name: the domain.
        images: folder of photographs, of frames of videos, or of videos.
        role: `train` (split by identity) or `test` (all of it is the split `test`).
        identity: `cluster` (by embeddings), `folder` (the sub-folder's name) or `file` (each its own).
        limit: about how many images to take, evenly over what is known of the identities beforehand.
        settings: detection, alignment and encoding.
        out: `results/faces/<domain>`.
        frames: whether a sub-folder holds the frames of a video; None: as `naming.shown` tells.
        frames_per_video: at most so many frames of a video file, spread evenly over all of it.
        read_videos: reads the faces of video files; None: these are left out. What it has done is kept beside
            `out` until `out` is complete, so that it goes on from there after a crash.

    Raises:
        R2MError: bad folder, missing model, or too few usable photographs.
    """
    if identity == "cluster" and settings.embedder is None:
        raise R2MError(
            f"domains.{name}.identity: 'cluster' needs the face embedder, which faces.detector 'none' "
            "leaves out; expected 'folder' or 'file'"
        )
    usable, left_out = intake(images, "real")
    if read_videos is None:
        left_out += [((images / file).as_posix(), "a video") for file in usable if is_video(file)]
        usable = [file for file in usable if not is_video(file)]
    files, misplaced = choose(images, usable, identity, limit, frames_per_video)
    stills, videos = [[file for file in files if is_video(file) == is_one] for is_one in (False, True)]
    state = out.with_name(f".{out.name}.videos")
    with atomic_path(out) as folder:
        folder.mkdir()
        faces = extract(images, stills, name, settings, folder / "images", folder / "crops")
        # Of a limited choice, numbers would not show what are videos.
        of_file = shown([file for file in usable if not is_video(file)], "real", frames)
        shows = [of_file[file] for file in faces.file]
        report_videos(name, shows)
        if read_videos is not None and videos:
            filmed = read_videos(
                *(images, videos, name, settings, frames_per_video),
                *(folder / "images", folder / "crops", state),
            )
            shows += [of_frame(file, "real") for file in filmed.file]
            faces.extend(filmed)
        people = people_of_reals(faces, shows, identity, settings.options.identity_similarity)
        table = real_rows(name, faces, [show.video for show in shows], people, role, settings)
        table["frame"] = [None if show.frame is None else str(show.frame) for show in shows]
        table["sampling"] = faces.sampling
        skipped = left_out + misplaced + faces.skipped
        report(name, len(table), skipped)
        write_skipped(folder / "skipped.csv", skipped)
        expected = manifest.SPLITS if role == "train" else ("test",)
        require_images(
            list(table["split"]), expected, settings.options.min_images, f"{images} (domain {name!r})"
        )
        names = [stem_of(file) for file in faces.file]
        table["path"] = [f"{out.as_posix()}/images/{stem}.jpg" for stem in names]
        manifest.write(table, folder / "manifest.parquet")
        landmarks = landmark_table(faces, [f"{out.as_posix()}/crops/{stem}.png" for stem in names])
        landmarks.to_parquet(folder / "landmarks.parquet", index=False)
    discard(state)


def choose(
    images: Path, files: Sequence[Path], identity: str, limit: int | None, frames_per_video: int = 1
) -> tuple[list[Path], Skipped]:
    """Return the files to use and (path, reason) of those that name no identity.

    `limit` is about how many images to take, of which a video gives `frames_per_video`.
    """
    identified, misplaced = [], []
    for file in files:
        inside = Path(stem_of(file), file.name) if is_video(file) else file
        try:
            identified.append((file, identities.by_path(inside, identity)))
        except ValueError as error:
            misplaced.append(((images / file).as_posix(), str(error)))
    if limit is not None and identified:
        most = sum(frames_per_video if is_video(file) else 1 for file, _ in identified)
        limit = max(1, limit * len(identified) // most)
    chosen = identities.evenly([name for _, name in identified], limit)
    return [identified[index][0] for index in chosen], misplaced


def people_of_reals(faces: Faces, shows: Sequence[Shown], identity: str, similarity: float) -> list[str]:
    """Return the identity of each face by its group or name; frames of a video and copies have the same.

    Groups of `cluster` are numbered by their first member, other identities go by the name of theirs.
    """
    videos = [show.video and (person_of_folder(Path(show.video)) or show.video) for show in shows]
    if identity == "cluster":
        groups = identities.cluster(faces.embedding, similarity)
        return [
            identities.pseudo(group) for group in identities.linked(groups, videos, faces.digest).tolist()
        ]
    names = [identities.by_path(file, identity) for file in faces.file]
    return identities.first_of_group(identities.linked(names, videos, faces.digest), names)


def real_rows(
    name: str,
    faces: Faces,
    videos: Sequence[str | None],
    people: Sequence[str],
    role: str,
    settings: Settings,
) -> pd.DataFrame:
    """Return the manifest of a domain's reals but for the column `path`."""
    shares = settings.options.split.model_dump() if role == "train" else {"test": 1.0}
    split_of = split_by_identity(people, shares, settings.seed)
    return pd.DataFrame(
        {
            "image_id": faces.image_id,
            "label": 0,
            "generator": manifest.REAL,
            "family": manifest.REAL,
            "domain": name,
            "identity": people,
            "source_image": None,
            "video": videos,
            "split": [split_of[person] for person in people],
            "digest": faces.digest,
        }
    )


def landmark_table(faces: Faces, crops: Sequence[str]) -> pd.DataFrame:
    """Return the table image_id, crop, x0, y0, …, x4, y4 in crop pixels, embedding; by image_id."""
    points = pd.DataFrame(faces.landmarks.reshape(len(faces.image_id), 10), columns=list(LANDMARK_COLUMNS))
    points.insert(0, "crop", list(crops))
    points.insert(0, "image_id", faces.image_id)
    points["embedding"] = list(faces.embedding)
    return points.sort_values("image_id", ignore_index=True)


def stem_of(file: Path) -> str:
    """Return a relative path without its suffix."""
    return file.with_suffix("").as_posix()


def _by_stem(files: Sequence[Path]) -> list[list[Path]]:
    """Return the files in groups of one name but for the suffix."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(stem_of(file), []).append(file)
    return list(groups.values())


def read_landmarks(path: Path) -> pd.DataFrame:
    """Return a landmarks.parquet by image_id: crop, landmarks (5, 2) in crop pixels, embedding (D,).

    Raises:
        R2MError: the file is missing or lacks a column.
    """
    columns = ["image_id", "crop", "embedding", *LANDMARK_COLUMNS]
    try:
        table = pd.read_parquet(path, columns=columns).set_index("image_id")
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read the landmarks: {error}") from error
    points = table[list(LANDMARK_COLUMNS)].to_numpy(dtype=np.float32).reshape(-1, 5, 2)
    table["landmarks"] = pd.Series(list(points), index=table.index, dtype=object)
    return table[["crop", "landmarks", "embedding"]]
