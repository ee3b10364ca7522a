"""What is in the files of an index: hashes and sizes, read in parallel and kept for the next time."""

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image as Pillow
from tqdm import tqdm

from r2m.data.images import Image, read_image
from r2m.files import atomic_path

logger = logging.getLogger(__name__)

CHUNK = 32  # files that one thread reads at a time
READ_BYTES = 1 << 20
SAVE_SECONDS = 300.0
DIGITS = 32  # of BLAKE3 in hexadecimal, 128 bits
VERSION = b"1"  # to be raised when other values are found in the same file
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("time", pa.int64()),
        pa.field("digest", pa.string()),
        pa.field("phash", pa.uint64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("problem", pa.string()),
    ],
    metadata={b"r2m_contents": VERSION},
)


@dataclass(frozen=True)
class Content:
    """What was found in a file.

    Attributes:
        size: bytes.
        time: of the last change, nanoseconds.
        digest: BLAKE3 of the bytes, 32 hex digits; empty where the file cannot be read.
        phash: perceptual hash of 64 bits, 0 where there is none (videos).
        width: pixels, 0 where unknown.
        height: pixels, 0 where unknown.
        problem: why it cannot be used, empty if it can.
    """

    size: int
    time: int
    digest: str = ""
    phash: int = 0
    width: int = 0
    height: int = 0
    problem: str = ""


class Contents:
    """The fields of `Content` for many files, a column each, as they become known.

    Attributes:
        paths: of the files, relative to one root; each but once.
        recorded: whether the cache knew the file, (N,).
        known: whether anything is known of the file, (N,).
    """

    def __init__(self, paths: pa.Array, cache: Path | None) -> None:
        self.paths = paths
        table = SCHEMA.empty_table() if cache is None else _read_cache(cache)
        found = pc.index_in(paths, table["path"])
        self.recorded = found.is_valid().to_numpy(zero_copy_only=False)
        self.known = self.recorded.copy()
        rows = found.drop_null()
        self._columns: dict[str, NDArray[Any]] = {}
        for field in list(SCHEMA)[1:]:
            is_text = pa.types.is_string(field.type)
            column = (
                np.full(len(paths), "", object)
                if is_text
                else np.zeros(len(paths), field.type.to_pandas_dtype())
            )
            column[self.recorded] = table[field.name].take(rows).to_numpy()
            self._columns[field.name] = column

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def put(self, row: int, content: Content) -> None:
        """Set what is known of one file."""
        for column, value in zip(self._columns.values(), astuple(content), strict=True):
            column[row] = value
        self.known[row] = True

    def write(self, cache: Path) -> None:
        """Write what is known, for the next time."""
        columns = {name: pa.array(column) for name, column in self._columns.items()}
        table = pa.table({"path": self.paths, **columns}, schema=SCHEMA).filter(pa.array(self.known))
        with atomic_path(cache) as temporary:
            pq.write_table(table, temporary)


def read_contents(
    root: Path, paths: pa.Array, is_video: NDArray[np.bool_], cache: Path | None, threads: int
) -> Contents:
    """Return what is in the files of `paths`, which are relative to `root` and stand there but once.

    Files of the size and time that `cache` has on record are not opened. It is written anew, also when
    reading is interrupted; None keeps nothing. A thread holds one image at a time, so memory does not grow
    with their bytes.
    """
    contents = Contents(paths, cache)

    def look(first: int) -> list[Content | None]:
        names = paths.slice(first, CHUNK).to_pylist()
        return [look_at(first + place, os.path.join(root, name)) for place, name in enumerate(names)]

    def look_at(row: int, path: str) -> Content | None:
        try:
            stat = os.stat(path)
        except OSError as error:
            return Content(-1, -1, problem=f"cannot be read: {error.strerror}")
        is_as_recorded = contents["size"][row] == stat.st_size and contents["time"][row] == stat.st_mtime_ns
        if contents.recorded[row] and is_as_recorded:
            return None
        return read_content(path, stat, bool(is_video[row]))

    saved = time.monotonic()
    pool = ThreadPoolExecutor(threads)
    try:
        with tqdm(total=len(paths), unit="file", desc="contents", leave=False, disable=None) as bar:
            for number, found in enumerate(pool.map(look, range(0, len(paths), CHUNK))):
                for place, content in enumerate(found):
                    if content is not None:
                        contents.put(number * CHUNK + place, content)
                bar.update(len(found))
                if cache is not None and time.monotonic() - saved > SAVE_SECONDS:
                    contents.write(cache)
                    saved = time.monotonic()
    finally:
        pool.shutdown(cancel_futures=True)
        if cache is not None:
            contents.write(cache)
    return contents


def read_content(path: str, stat: os.stat_result, is_video: bool) -> Content:
    """Return what is in one file, an image or a video."""
    read = _read_video if is_video else _read_image
    try:
        return read(path, stat)
    except ValueError as error:
        return Content(stat.st_size, stat.st_mtime_ns, problem=str(error))


def first_frame(path: str) -> Image:
    """Return the first frame of a video as BGR (H, W, 3).

    Raises:
        ValueError: it is no video, or has no frame that can be decoded; the message is a short reason.
    """
    try:
        # As for extraction, no path reads as a protocol, and no playlist fetches anything.
        with av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}) as container:
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise ValueError("a video without frames")
            return frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
    except (av.FFmpegError, IndexError, OSError) as error:
        reason = (
            "no video stream" if isinstance(error, IndexError) else getattr(error, "strerror", None) or error
        )
        raise ValueError(f"cannot be read as a video: {reason}") from error


def _read_image(path: str, stat: os.stat_result) -> Content:
    image, digest = read_image(Path(path))
    grey = Pillow.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    phash = int(str(imagehash.phash(grey)), 16)
    height, width = image.shape[:2]
    return Content(stat.st_size, stat.st_mtime_ns, digest[:DIGITS], phash, width, height)


def _read_video(path: str, stat: os.stat_result) -> Content:
    height, width = first_frame(path).shape[:2]
    digest = blake3()
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    return Content(stat.st_size, stat.st_mtime_ns, digest.hexdigest()[:DIGITS], 0, width, height)


def _read_cache(cache: Path) -> pa.Table:
    """Return what an earlier run found; nothing where there is no record, or one of other columns."""
    try:
        table = pq.read_table(cache)
    except FileNotFoundError:
        return SCHEMA.empty_table()
    except (OSError, pa.ArrowException) as error:
        logger.warning("%s: cannot be read (%s); all files are read anew", cache, error)
        return SCHEMA.empty_table()
    if not table.schema.equals(SCHEMA) or (table.schema.metadata or {}).get(b"r2m_contents") != VERSION:
        logger.warning("%s: of another version; all files are read anew", cache)
        return SCHEMA.empty_table()
    return table
