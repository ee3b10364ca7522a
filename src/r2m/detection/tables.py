"""Detections as rows of a table that is written while they come: CSV, JSON, JSON lines or Parquet."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from r2m.detection.detecting import Detection, ScoredFace
from r2m.errors import R2MError
from r2m.files import atomic_path, refusal

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("level", pa.string()),
        ("face", pa.int64()),
        ("seconds", pa.float64()),
        *((side, pa.int64()) for side in ("left", "top", "width", "height")),
        ("logit", pa.float64()),
        ("probability", pa.float64()),
        ("decision", pa.string()),
        ("closest", pa.string()),
        ("closest_probability", pa.float64()),
        ("reason", pa.string()),
    ]
)
COLUMNS = tuple(SCHEMA.names)
# Rows of Parquet that are in memory at a time.
GROUP = 4096

Row = dict[str, Any]


def rows_of(detection: Detection) -> Iterator[Row]:
    """Yield the rows of a file, columns `COLUMNS`, None where there is nothing to say.

    The `level` says what a row is of. A photograph has one for each `face`. A video has one for each `frame`
    with a face, one for each `track`, the mean of a person's frames, and one for the `video`, which is that
    of the person who looks most like a fake. Without a face there is one row, `file`, with the reason.
    """

    # A name that is not UTF-8 is written with escapes.
    path = str(detection.path).encode(errors="backslashreplace").decode()

    def row(level: str, **values: Any) -> Row:
        return dict.fromkeys(COLUMNS) | {"path": path, "level": level} | values

    def said(probability: float, faces: Sequence[ScoredFace]) -> Row:
        specialist, response = detection.closest_to(faces) or (None, None)
        return {
            "probability": probability,
            "decision": detection.decided(probability),
            "closest": specialist,
            "closest_probability": response,
        }

    if not detection.faces:
        yield row("file", reason=detection.reason)
        return
    is_video = detection.faces[0].seconds is not None
    for face in detection.faces:
        left, top, width, height = face.box
        yield row(
            "frame" if is_video else "face",
            face=face.number,
            seconds=face.seconds,
            left=left,
            top=top,
            width=width,
            height=height,
            logit=face.logit,
            **said(face.probability, [face]),
        )
    if is_video:
        for number in detection.numbers:
            yield row("track", face=number, **said(detection.mean(number), detection.of(number)))
        yield row("video", **said(detection.probability, detection.foremost))


class Table(ABC):
    """A table in a file, written row by row; `rows` counts them."""

    rows = 0

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Begin the file."""

    def write(self, row: Row) -> None:
        """Write a row."""
        self._write(row)
        self.rows += 1

    @abstractmethod
    def _write(self, row: Row) -> None:
        """Write a row."""

    @abstractmethod
    def close(self) -> None:
        """Make what was written a whole file."""


class _Text(Table):
    """A table of text."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")

    def close(self) -> None:
        self._file.close()


class CsvTable(_Text):
    """Comma-separated values."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rows = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._quoted = csv.DictWriter(self._file, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._rows.writeheader()

    def _write(self, row: Row) -> None:
        # Readers take a bare carriage return for the end of a row, and Python before 3.13 does not quote it.
        is_plain = not any(isinstance(value, str) and "\r" in value for value in row.values())
        (self._rows if is_plain else self._quoted).writerow(row)


class JsonLinesTable(_Text):
    """One JSON object a line."""

    def _write(self, row: Row) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")


class JsonTable(_Text):
    """A JSON array of objects."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._before = "[\n"

    def _write(self, row: Row) -> None:
        self._file.write(self._before + json.dumps(row, ensure_ascii=False))
        self._before = ",\n"

    def close(self) -> None:
        """End the array."""
        self._file.write("[]\n" if self._before == "[\n" else "\n]\n")
        super().close()


class ParquetTable(Table):
    """Parquet, in groups of rows."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA)
        self._group: list[Row] = []

    def _write(self, row: Row) -> None:
        self._group.append(row)
        if len(self._group) >= GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._group:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._group, SCHEMA))
        self._group = []


TABLES: Mapping[str, type[Table]] = MappingProxyType(
    {".csv": CsvTable, ".jsonl": JsonLinesTable, ".json": JsonTable, ".parquet": ParquetTable}
)


def table_type(path: Path) -> type[Table]:
    """Return what writes a file of this name; raises R2MError for a suffix that is none of a table."""
    if path.suffix.lower() not in TABLES:
        raise R2MError(f"{path}: a table of unknown sort; expected a name that ends in {', '.join(TABLES)}")
    return TABLES[path.suffix.lower()]


@contextmanager
def open_table(path: Path, source: str = "table") -> Iterator[Table]:
    """Yield a table that appears at `path` when it is whole; `source` is where the path was given.

    That is at the end, or with the rows that there are when Ctrl-C or another signal ends the body. Then
    nothing is written where there are none.

    Raises:
        R2MError: a suffix that is none of a table, or it cannot be written; nothing is left.
    """
    make = table_type(path)
    ended: BaseException | None = None
    try:
        with atomic_path(path) as temporary:
            table = make(temporary)
            try:
                yield table
            except BaseException as error:
                ended = error
                if isinstance(error, Exception) or not table.rows:
                    raise
            finally:
                table.close()
    except OSError as error:
        if error is ended:
            raise
        raise refusal(source, path, error) from error
    if ended is not None:
        raise ended
