"""Slices of an index: what is known of them without their rows, and which of them an image set is made of."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from r2m.datasets.options import DatasetOptions
from r2m.errors import R2MError
from r2m.files import write_text

REAL = "real"
# all: rows keep the split of the index. test: those of the split `test`. test_if_any: the same, but all rows
# where none is of that split; they are tested on.
Splits = Literal["all", "test", "test_if_any"]
SPLITS = ("train", "val", "test")
_FORMAT = 1


@dataclass(frozen=True)
class Part:
    """Rows of an index that belong to an image set: reals of a domain, or fakes of a method there.

    `domain` and `method` (`real`, or a generator's) are those of the index, `name` is the domain's name in
    manifests, and `splits` tells which splits are taken.
    """

    domain: str
    method: str
    name: str
    splits: Splits

    @property
    def label(self) -> int:
        """0 for reals, 1 for fakes."""
        return int(self.method != REAL)


@dataclass(frozen=True)
class Slice:
    """What is known of all rows of one domain and method: how many, and a digest of them.

    `counts` is split → rows, `videos` how many of the rows are video files.
    """

    domain: str
    method: str
    family: str
    counts: Mapping[str, int]
    videos: int
    digest: str


@dataclass(frozen=True)
class Index:
    """An index by its slices; `root` is the folder of its files."""

    root: str
    slices: tuple[Slice, ...]

    def of(self, part: Part) -> Slice | None:
        """Return the slice that a part is of; None where the index has no such rows."""
        return next((s for s in self.slices if (s.domain, s.method) == (part.domain, part.method)), None)

    def state(self) -> str:
        """Return a digest of all rows, and of where their files lie."""
        return digest([self.root, *(one.digest for one in self.slices)])

    def digest(self, parts: Iterable[Part], options: DatasetOptions) -> str:
        """Return what tells whether the `parts` of an image set have to be taken again."""
        slices = [self.of(part) for part in parts]
        return taken_digest([None if one is None else one.digest for one in slices], options)

    def to_json(self) -> str:
        """Return the index as text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Index":
        """Return the index of a text; raises ValueError, KeyError or TypeError where it is none."""
        content = json.loads(text)
        return cls(content["root"], tuple(Slice(**one) for one in content["slices"]))


def digest(content: Any) -> str:
    """Return a digest of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def taken_digest(digests: Sequence[str | None], options: DatasetOptions) -> str:
    """Return a digest of slices by theirs (None: no rows), and of how they are taken."""
    return digest([*digests, options.as_taken().model_dump(mode="json", exclude={"index", "root"})])


def read_index(path: str | Path) -> Index:
    """Return the slices of an index, in its order.

    Raises:
        R2MError: it is missing, no index, or not sorted.
    """
    import numpy as np

    from r2m.index import table

    rows = table.read(path).unify_dictionaries().combine_chunks()
    if not len(rows):
        raise R2MError(f"{path}: an index without rows; expected images")
    # Rows are sorted, so that a slice begins where one of its keys changes.
    codes = [
        rows[key].combine_chunks().indices.to_numpy(zero_copy_only=False) for key in ("domain", "method")
    ]
    changes = np.any([code[1:] != code[:-1] for code in codes], axis=0)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(rows)]
    slices = tuple(_slice(rows.slice(start, stop - start)) for start, stop in pairwise(bounds))
    if len({(one.domain, one.method) for one in slices}) < len(slices):
        raise R2MError(f"{path}: its rows are not sorted by domain and method; make it again: `r2m index`")
    return Index(str(table.metadata(path)["root"]), slices)


def _slice(rows: Any) -> Slice:
    """Return what is known of the rows (a table of Arrow) of one slice."""
    from r2m.index import table

    first = rows.slice(0, 1).to_pylist()[0]
    counts, media = (
        {str(one["values"]): int(one["counts"]) for one in rows[key].value_counts().to_pylist()}
        for key in ("split", "media")
    )
    return Slice(
        str(first["domain"]),
        str(first["method"]),
        str(first["family"]),
        dict(sorted(counts.items())),
        media.get("video", 0),
        table.slice_digest(rows),
    )


class Indexes:
    """Indexes as they are at one start of the workflow.

    What is known of an index is kept in the folder `records`, and read anew only where its size, time or
    inode differ.
    """

    def __init__(self, records: Path) -> None:
        self._records = records
        self._read: dict[str, Index] = {}

    def __call__(self, path: str) -> Index:
        """Return an index; raises R2MError like `read_index`."""
        if path not in self._read:
            self._read[path] = self._recorded(path)
        return self._read[path]

    def _recorded(self, path: str) -> Index:
        record = self._records / f"{hashlib.sha256(path.encode()).hexdigest()[:16]}.json"
        stat = _stat(path)
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
            if content["file"] == stat:
                return Index.from_json(content["index"])
        except (OSError, ValueError, KeyError, TypeError):  # nothing was recorded, or the record is damaged
            pass
        index = read_index(path)
        if stat == _stat(path):
            write_text(record, json.dumps({"file": stat, "index": index.to_json()}))
        return index


def _stat(path: str) -> list[int]:
    """Return what changes with a file's content: format of records, size, time and inode."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror}); `r2m index` makes an index") from error
    return [_FORMAT, stat.st_size, stat.st_mtime_ns, stat.st_ino]
