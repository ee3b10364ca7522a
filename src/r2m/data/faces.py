"""From a folder of photographs to aligned crops, encoded images, identities and splits."""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m import manifest
from r2m.data import identity as identities
from r2m.data.align import Landmarks, align, template
from r2m.data.detect import Embedding, FaceDetector, FaceEmbedder, require
from r2m.data.encode import Image, encode
from r2m.data.images import read_image, write_png
from r2m.data.listing import list_images
from r2m.data.parallel import thread_map
from r2m.data.split import require_images, split_by_identity
from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.params import FacesOptions
from r2m.seeding import rng

log = logging.getLogger(__name__)

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
        file: their files, relative to the folder.
        landmarks: (N, 5, 2) in crop pixels.
        embedding: (N, D) of unit length, or (N, 0) without an embedder.
        skipped: (path, reason) of the files that gave no face.
    """

    image_id: list[str] = field(default_factory=list)
    file: list[Path] = field(default_factory=list)
    landmarks: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 5, 2), dtype=np.float32))
    embedding: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    skipped: list[tuple[str, str]] = field(default_factory=list)


class Aligner:
    """Turns one photograph into an aligned crop; its networks exist once a thread."""

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
        options, embedder = self._settings.options, self._embedder()
        if self._settings.detector is None:
            kernel = cv2.INTER_AREA if min(image.shape[:2]) > options.crop_size else cv2.INTER_CUBIC
            resized = cv2.resize(image, (options.crop_size, options.crop_size), interpolation=kernel)
            crop = resized.astype(np.uint8, copy=False)
            landmarks = template(options.crop_size, options.margin)
            embedded = crop, landmarks
        else:
            found = self._detector().largest(image)
            if found is None:
                raise ValueError(f"no face found with a score of {options.min_score} or more")
            crop, landmarks = align(image, found, options.crop_size, options.margin)
            embedded = image, found
        return crop, landmarks, np.empty(0, np.float32) if embedder is None else embedder.embed(*embedded)

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

    def one(file: Path) -> tuple[Landmarks, Embedding] | str:
        stem = file.with_suffix("").as_posix()
        try:
            crop, landmarks, embedding = aligner(read_image(source / file))
        except ValueError as error:
            return str(error)
        if crops is not None:
            write_png(crops / f"{stem}.png", crop)
        write_encoded(images / f"{stem}.jpg", crop, f"{prefix}/{stem}", settings)
        return landmarks, embedding

    unique, repeated = _distinct(files)
    faces = Faces(skipped=[((source / file).as_posix(), reason) for file, reason in repeated])
    landmarks, embeddings = [], []
    for file, result in zip(unique, thread_map(one, unique, settings.threads), strict=True):
        if isinstance(result, str):
            faces.skipped.append(((source / file).as_posix(), result))
            continue
        faces.image_id.append(f"{prefix}/{file.with_suffix('').as_posix()}")
        faces.file.append(file)
        landmarks.append(result[0])
        embeddings.append(result[1])
    if landmarks:
        faces.landmarks, faces.embedding = np.stack(landmarks), np.stack(embeddings)
    report(prefix, len(files), faces.skipped)
    return faces


def write_encoded(path: Path, crop: Image, image_id: str, settings: Settings) -> None:
    """Encode `crop` by the random stream of `image_id` and write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = rng(settings.seed, "encode", image_id)
    path.write_bytes(encode(crop, settings.image_size, settings.options.jpeg_quality, stream))


def report(name: str, total: int, skipped: Sequence[tuple[str, str]]) -> None:
    """Log in one line how many files were used, and the first reason for which one was not."""
    first = f"; first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
    log.info("%s: %d of %d images used, %d skipped%s", name, total - len(skipped), total, len(skipped), first)


def write_skipped(path: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """Write skipped.csv: path, reason."""
    pd.DataFrame(list(skipped), columns=["path", "reason"]).to_csv(path, index=False)


def build_domain(
    name: str, images: Path, role: str, identity: str, limit: int | None, settings: Settings, out: Path
) -> None:
    """Write the image set of one domain of real photographs into the folder `out`, complete or not at all.

    Args:
        name: the domain.
        images: folder of photographs.
        role: `train` (split by identity) or `test` (all of it is the split `test`).
        identity: `cluster` (by embeddings), `folder` (the sub-folder's name) or `file` (each its own).
        limit: about how many photographs to take, evenly over what is known of the identities beforehand.
        settings: detection, alignment and encoding.
        out: `results/faces/<domain>`.

    Raises:
        R2MError: bad folder, missing model, or too few usable photographs.
    """
    if identity == "cluster" and settings.embedder is None:
        raise R2MError(
            f"domains.{name}.identity: 'cluster' needs the face embedder, which faces.detector 'none' "
            "leaves out; expected 'folder' or 'file'"
        )
    files, misplaced = choose(images, identity, limit)
    with atomic_path(out) as folder:
        folder.mkdir()
        faces = extract(images, files, name, settings, folder / "images", folder / "crops")
        faces.skipped += misplaced
        write_skipped(folder / "skipped.csv", faces.skipped)
        table = real_rows(name, faces, identity, role, settings)
        expected = manifest.SPLITS if role == "train" else ("test",)
        require_images(
            list(table["split"]), expected, settings.options.min_images, f"{images} (domain {name!r})"
        )
        table["path"] = [f"{out.as_posix()}/images/{stem_of(file)}.jpg" for file in faces.file]
        manifest.write(table, folder / "manifest.parquet")
        crops = [f"{out.as_posix()}/crops/{stem_of(file)}.png" for file in faces.file]
        landmark_table(faces, crops).to_parquet(folder / "landmarks.parquet", index=False)


def choose(images: Path, identity: str, limit: int | None) -> tuple[list[Path], list[tuple[str, str]]]:
    """Return the files to use and (path, reason) of those that name no identity."""
    named, misplaced = [], []
    for file in list_images(images):
        try:
            named.append((file, identities.by_path(file, identity)))
        except ValueError as error:
            misplaced.append(((images / file).as_posix(), str(error)))
    chosen = identities.evenly([name for _, name in named], limit)
    return [named[index][0] for index in chosen], misplaced


def real_rows(name: str, faces: Faces, identity: str, role: str, settings: Settings) -> pd.DataFrame:
    """Return the manifest of a domain's reals but for the column `path`."""
    if identity == "cluster":
        people = identities.cluster(faces.embedding, settings.options.identity_similarity)
    else:
        people = [identities.by_path(file, identity) for file in faces.file]
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
            "video": None,
            "split": [split_of[person] for person in people],
        }
    )


def landmark_table(faces: Faces, crops: Sequence[str]) -> pd.DataFrame:
    """Return the table image_id, crop, x0, y0, …, x4, y4 in crop pixels, sorted by image_id."""
    points = pd.DataFrame(faces.landmarks.reshape(len(faces.image_id), 10), columns=list(LANDMARK_COLUMNS))
    points.insert(0, "crop", list(crops))
    points.insert(0, "image_id", faces.image_id)
    return points.sort_values("image_id", ignore_index=True)


def stem_of(file: Path) -> str:
    """Return a relative path without its suffix."""
    return file.with_suffix("").as_posix()


def _distinct(files: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the files of distinct stems, and the others with the reason for skipping them."""
    first: dict[str, Path] = {}
    repeated = []
    for file in files:
        other = first.setdefault(stem_of(file), file)
        if other is not file:
            repeated.append((file, f"has the name of {other.as_posix()} but for the suffix"))
    return list(first.values()), repeated


def read_landmarks(path: Path) -> Iterator[tuple[str, str, Landmarks]]:
    """Yield (image_id, crop, landmarks (5, 2)) of a landmarks.parquet.

    Raises:
        R2MError: the file is missing or lacks a column.
    """
    try:
        table = pd.read_parquet(path, columns=["image_id", "crop", *LANDMARK_COLUMNS])
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read the landmarks: {error}") from error
    points = table[list(LANDMARK_COLUMNS)].to_numpy(dtype=np.float32).reshape(-1, 5, 2)
    yield from zip(table["image_id"], table["crop"], points, strict=True)
