"""Weights in several safetensors files with an index, named and laid out as Hugging Face's libraries do."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.files import discard, discard_left, temporary_path
from r2m.models.entries import Entry
from r2m.models.weight_files import INDEX_SUFFIX
from r2m.models.writer import WeightsWriter


class ShardsWriter:
    """Shards of at most `size` bytes of tensors, and their index; or one file, where that is enough.

    They are written as by `WeightsWriter`, whose arguments are the same, and each has all metadata. Tensors
    go into shards by name, whole: one that is larger than `size` has a shard of its own. `path` is the file
    where one is enough; shards of NAME.safetensors are NAME-00001-of-00003.safetensors and so on, and the
    index is NAME.safetensors.index.json. Without `size` there is one file.
    """

    def __init__(
        self,
        path: Path,
        specs: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        metadata: Mapping[str, Any],
        size: int | None = None,
    ) -> None:
        self._sizes = {name: Entry(dtype, tuple(shape)).nbytes for name, (dtype, shape) in specs.items()}
        groups = split(dict(sorted(self._sizes.items())), size)
        self._file = path
        self._index = index_path(path) if len(groups) > 1 else None
        self._index_file = temporary_path(index_path(path))
        paths = [path] if self._index is None else shard_paths(path, len(groups))
        self._writers = [
            WeightsWriter(shard, {name: specs[name] for name in names}, metadata)
            for shard, names in zip(paths, groups, strict=True)
        ]
        self._writer_of = {
            name: writer for writer, names in zip(self._writers, groups, strict=True) for name in names
        }

    @property
    def path(self) -> Path:
        """What opens the weights: the index, or the only file."""
        return self._index or self._file

    @property
    def shards(self) -> list[Path]:
        """The shards in order; none where there is one file."""
        return [] if self._index is None else [writer.path for writer in self._writers]

    def __enter__(self) -> Self:
        _discard_left(self._file)
        with ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            stack.callback(discard, self._index_file)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of the tensor `name`."""
        return self._writer_of[name].dtype(name)

    def write(self, name: str, start: int, tensor: Tensor) -> None:
        """Write elements of a tensor; raises like `WeightsWriter.write`."""
        self._writer_of[name].write(name, start, tensor)

    def complete(self, metadata: Mapping[str, Any]) -> dict[Path, Path]:
        """Complete all files, and return the temporary path of each, the index last.

        The caller publishes them before the writer is left, which removes them.

        Raises:
            ValueError: elements that were never written, or metadata longer than those given first.
            R2MError: the disk refuses.
        """
        files = {writer.path: writer.complete(metadata) for writer in self._writers}
        if self._index is not None:
            content = {
                "metadata": {"total_size": sum(self._sizes.values())},
                "weight_map": {name: writer.path.name for name, writer in sorted(self._writer_of.items())},
            }
            try:
                self._index_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise R2MError(f"{self._index}: cannot be written ({error.strerror})") from error
            files[self._index] = self._index_file
        return files


def split(sizes: Mapping[str, int], most: int | None) -> list[list[str]]:
    """Return the names of `sizes` in groups of at most `most` bytes, in order; a larger one is alone."""
    groups: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if room is not None and most is not None:
            if groups[-1] and size > room:
                groups.append([])
                room = most
            room -= size
        groups[-1].append(name)
    return groups


def index_path(path: Path) -> Path:
    """Return the name of the index of the shards of NAME.safetensors."""
    return path.with_name(path.name + INDEX_SUFFIX)


def shard_paths(path: Path, count: int) -> list[Path]:
    """Return the names of `count` shards of NAME.safetensors."""
    return [
        path.with_name(f"{path.stem}-{number:05}-of-{count:05}{path.suffix}")
        for number in range(1, count + 1)
    ]


def belongs_to(other: Path, path: Path) -> bool:
    """Tell whether a file is by its name NAME.safetensors, `path`, its index or a shard of it."""
    names = (path.name, index_path(path).name)
    shard = rf"{re.escape(path.stem)}-\d{{5}}-of-\d{{5}}{re.escape(path.suffix)}"
    is_member = other.name in names or re.fullmatch(shard, other.name) is not None
    return is_member and other.resolve().parent == path.resolve().parent


def present(path: Path) -> list[Path]:
    """Return what there is of NAME.safetensors, `path`: an index first, the file, shards of any number."""
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:  # whoever writes there tells
        return []
    found = [path.with_name(name) for name in names if belongs_to(path.with_name(name), path)]
    return sorted(found, key=lambda other: other != index_path(path))


def _discard_left(path: Path) -> None:
    """Remove what processes left half-made of an index or of shards of any number."""
    discard_left(index_path(path))
    shard = re.compile(rf"\.({re.escape(path.stem)}-\d{{5}}-of-\d{{5}})\.")
    with suppress(OSError):
        matches = map(shard.match, os.listdir(path.parent))
        for stem in sorted({match[1] for match in matches if match}):
            discard_left(path.with_name(stem + path.suffix))
