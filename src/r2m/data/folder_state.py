"""What Snakemake cannot see of folders: changed contents of the user's images, and outputs that are gone."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from r2m.data.listing import find_media, is_video
from r2m.errors import R2MError
from r2m.files import write_text

logger = logging.getLogger(__name__)

READERS = 8
CHUNK = 256  # files that one thread reads at a time
TOLD_BYTES = 1_000_000_000


class _File(NamedTuple):
    """What is known of one image.

    `stat` are size, times and inode as text, empty for a file that is not there. `mark` stands for the
    content in digests: the size that the file was first seen with, and other text after a change; it is empty
    for a file that cannot be read. `content` is the hash of the bytes, `original` that of the bytes that the
    size stands for, each None until they were read.
    """

    stat: str
    mark: str
    content: str | None = None
    original: str | None = None


class _Folder(NamedTuple):
    """What lies below a folder: numbers of images and of videos, and a digest of both."""

    images: int
    videos: int
    digest: str


class ImageFolders:
    """Folders of the user's images and videos as they are at one start of the workflow, each listed once.

    A digest changes when images come, go, or change their content. The first one is of names and sizes, and
    no image is read for it. `read_contents` reads them all once and keeps hashes in the folder `records`;
    from then on only files whose size, times or inode differ are read, and where contents are the same, so is
    the digest. A file that changes before it was read counts as changed.
    """

    def __init__(self, records: Path) -> None:
        self._records = records
        self._seen: dict[str, _Folder] = {}
        self._lost: dict[str, int] = {}

    def count(self, folder: str, frames_per_video: int = 1) -> int:
        """Return how many images are below `folder`, of which a video gives `frames_per_video`.

        Raises:
            R2MError: it cannot be listed.
        """
        below = self._look(folder)
        return below.images + frames_per_video * below.videos

    def digest(self, folders: Iterable[str]) -> str:
        """Return a digest of names and contents of the images below `folders`; raises like `count`."""
        digest = hashlib.sha256()
        for folder in folders:
            digest.update(_encoded(f"{Path(folder).as_posix()}\t{self._look(folder).digest}\n"))
        return digest.hexdigest()[:16]

    def read_contents(self) -> None:
        """Read the images of all folders that were looked at and whose contents are not known yet."""
        for folder in list(self._seen):
            recorded = self._read(folder)
            unread = {name: file for name, file in recorded.items() if file.stat and file.content is None}
            hashed = {}
            for (name, file), content in zip(unread.items(), _contents(folder, list(unread)), strict=True):
                # What has changed since the start, the next start has to see as changed.
                if content is not None and _stat(os.path.join(folder, name)) == file.stat:
                    is_first = file.mark == _size(file.stat)
                    hashed[name] = file._replace(content=content, original=content if is_first else None)
            if hashed:
                self._write(folder, recorded | hashed)

    def times_lost(self, folder: str, beside: str) -> int:
        """Return at how many starts the output `folder` was found gone, though the file `beside` was there.

        A rule that has this number among its params runs again, since Snakemake itself makes a missing output
        again only where a file that does not exist yet needs it.
        """
        if folder not in self._lost:
            path = self._records / "lost.json"
            recorded = _json(path)
            times, was_gone = recorded.get(folder, (0, False))
            is_gone = Path(beside).is_file() and not Path(folder).is_dir()
            times += is_gone and not was_gone
            if times and [times, is_gone] != recorded.get(folder):
                _write_json(path, recorded | {folder: [times, is_gone]})
            self._lost[folder] = times
        return self._lost[folder]

    def _look(self, folder: str) -> _Folder:
        """Return what is below `folder`, and record what changed."""
        if folder not in self._seen:
            try:
                files = find_media(Path(folder))
            except OSError as error:
                raise R2MError(f"{error.filename}: cannot be listed ({error.strerror})") from error
            recorded, names = self._read(folder), [file.as_posix() for file in files]
            stats = {name: _stat(os.path.join(folder, name)) for name in names}
            changed = _changed(folder, recorded, stats)
            if changed:
                # Files that are gone stay on record, for they may come back with another content.
                self._write(folder, recorded | changed)
            digest = hashlib.sha256()
            for name in names:
                digest.update(_encoded(f"{name}\t{(changed.get(name) or recorded[name]).mark}\n"))
            videos = sum(map(is_video, files))
            self._seen[folder] = _Folder(len(files) - videos, videos, digest.hexdigest())
        return self._seen[folder]

    def _record(self, folder: str) -> Path:
        name = hashlib.sha256(_encoded(Path(folder).as_posix())).hexdigest()[:16]
        return self._records / f"{name}.json"

    def _read(self, folder: str) -> dict[str, _File]:
        return {name: _File(*values) for name, values in _json(self._record(folder)).items()}

    def _write(self, folder: str, files: Mapping[str, _File]) -> None:
        _write_json(self._record(folder), files)


def _changed(folder: str, recorded: Mapping[str, _File], stats: Mapping[str, str]) -> dict[str, _File]:
    """Return the files (name → stat) that are new or differ from the `recorded`, as they are `stats`."""
    new = {name: _File(stat, _size(stat)) for name, stat in stats.items() if name not in recorded}
    differing = [name for name, stat in stats.items() if name in recorded and recorded[name].stat != stat]
    to_read = [name for name in differing if recorded[name].content and stats[name]]
    size = sum(int(_size(stats[name])) for name in to_read)
    if size > TOLD_BYTES:
        logger.warning("%s: %d images have other times; reading %.0f GB", folder, len(to_read), size / 1e9)
    contents = dict(zip(to_read, _contents(folder, to_read), strict=True))
    return new | {name: _after(recorded[name], stats[name], contents.get(name)) for name in differing}


def _after(before: _File, stat: str, content: str | None) -> _File:
    """Return what a file is after its stat changed; `content` is None where it was not or cannot be read."""
    if content is None:
        return before._replace(stat=stat, mark="" if before.content else stat)
    if content == before.content and before.mark:
        return before._replace(stat=stat)
    return before._replace(
        stat=stat, mark=_size(stat) if content == before.original else content, content=content
    )


def _contents(folder: str, names: Sequence[str]) -> Iterator[str | None]:
    """Yield the hash of each file's bytes; None for one that cannot be read."""

    def contents(start: int) -> list[str | None]:
        return [_content(os.path.join(folder, name)) for name in names[start : start + CHUNK]]

    with ThreadPoolExecutor(READERS) as pool:
        yield from itertools.chain.from_iterable(pool.map(contents, range(0, len(names), CHUNK)))


def _content(path: str) -> str | None:
    try:
        if is_video(Path(path)):  # too large for memory
            return blake3().update_mmap(path).hexdigest(length=16)
        with open(path, "rb", buffering=0) as file:
            return blake3(file.readall()).hexdigest(length=16)
    except OSError:
        return None


def _stat(path: str) -> str:
    """Return size, times of content and of inode, and inode of a file; empty where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _size(stat: str) -> str:
    return stat.partition(" ")[0]


def _encoded(text: str) -> bytes:
    """Return UTF-8, also of file names that are none."""
    return text.encode("utf-8", "surrogateescape")


def _write_json(path: Path, content: Mapping[str, Sequence[Any]]) -> None:
    try:
        write_text(path, json.dumps(content))
    except OSError as error:
        raise R2MError(f"{path}: cannot be written ({error.strerror})") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing was recorded, or the record is damaged
        content = None
    return content if isinstance(content, dict) else {}
