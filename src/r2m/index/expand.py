"""Clips as rows: the table of an index, made in chunks."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from r2m.index.clips import frame_of
from r2m.index.splits import Placed
from r2m.index.table import SCHEMA

ROWS = 1 << 16
# Columns that all files of a clip have in common.
CATEGORIES = (
    "method",
    "family",
    "domain",
    "dataset",
    "video",
    "media",
    "split",
    "split_by",
    "compression",
)


class Row(NamedTuple):
    """One file; rows of one video are sorted as tuples. `frame` −1: none."""

    frame: int
    path: str
    clip: int
    size: int
    mask: str | None
    identity: str | None


def expand(placed: Sequence[Placed], root: str) -> pa.Table:
    """Return the table of all files, sorted by domain, label, method, video, frame and path.

    What has no video stands before what has one. `root` is the absolute folder that paths are relative to.
    """
    ordered = sorted(placed, key=_key)
    common = _Common(ordered)
    batches: list[pa.RecordBatch] = []
    rows: list[Row] = []
    for _, members in groupby(range(len(ordered)), key=lambda number: _key(ordered[number])):
        rows += sorted(row for number in members for row in _rows(number, ordered[number], root))
        if len(rows) >= ROWS:
            batches.append(common.batch(rows))
            rows = []
    batches.append(common.batch(rows))
    return pa.Table.from_batches(batches, SCHEMA)


def _key(item: Placed) -> tuple[str, int, str, str]:
    return item.clip.key[:4]


def _rows(number: int, item: Placed, root: str) -> Iterator[Row]:
    clip = item.clip
    folder = clip.folder[len(root.rstrip("/")) + 1 :]
    prefix = f"{folder}/" if folder else ""
    cut = len(root.rstrip("/")) + 1
    is_frame = clip.video is not None and clip.media == "image"
    first = clip.persons[0] if clip.persons else None
    for file, size in clip.files.items():
        stem = file.rpartition(".")[0]
        frame = clip.frames.get(file, frame_of(stem)) if is_frame else None
        mask = clip.masks.get(file)
        identity = f"{item.scope}/{stem}" if item.scope is not None else first
        yield Row(
            -1 if frame is None else frame,
            prefix + file,
            number,
            size,
            mask[cut:] if mask is not None else None,
            identity,
        )


class _Common:
    """The values that the files of each clip share, as codes into the categories of their columns."""

    def __init__(self, ordered: Sequence[Placed]) -> None:
        values = [_values(item) for item in ordered]
        self._categories: dict[str, pa.Array] = {}
        self._codes: dict[str, np.ndarray] = {}
        for position, name in enumerate(CATEGORIES):
            column = [row[position] for row in values]
            names = sorted({value for value in column if value is not None})
            code = {value: number for number, value in enumerate(names)}
            self._categories[name] = pa.array(names, pa.string())
            self._codes[name] = np.array([-1 if value is None else code[value] for value in column], np.int32)
        self._labels = np.array([item.clip.traits.label for item in ordered], np.int8)
        second = [item.clip.persons[1] if len(item.clip.persons) > 1 else None for item in ordered]
        self._second = pa.array(second, pa.string())

    def batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        """Return the rows as one batch."""
        clips = np.array([row.clip for row in rows], np.int64)
        frames = np.array([row.frame for row in rows], np.int32)
        columns = {
            "path": pa.array([row.path for row in rows], pa.string()),
            "label": pa.array(self._labels[clips]),
            "frame": pa.array(frames, mask=frames < 0),
            "identity": pa.array([row.identity for row in rows], pa.string()),
            "identity2": self._second.take(pa.array(clips)),
            "mask": pa.array([row.mask for row in rows], pa.string()),
            "size": pa.array([row.size for row in rows], pa.int64()),
        }
        for name in CATEGORIES:
            codes = self._codes[name][clips]
            indices = pa.array(codes, mask=codes < 0)
            columns[name] = pa.DictionaryArray.from_arrays(indices, self._categories[name])
        return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _values(item: Placed) -> tuple[str | None, ...]:
    clip, traits = item.clip, item.clip.traits
    return (
        traits.method,
        traits.family,
        traits.domain,
        traits.dataset,
        clip.video,
        clip.media,
        item.split,
        item.by,
        traits.compression,
    )
