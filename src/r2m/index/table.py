"""The index: one Parquet file with a row for every image or video file, read whole or by slices."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.options import nearest

VERSION = 1
REAL = "real"
_KEY = b"r2m"
_CATEGORY = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # POSIX, relative to the root
        pa.field("label", pa.int8(), nullable=False),  # 0 real, 1 fake
        pa.field("method", _CATEGORY, nullable=False),  # the generator, or `real`
        pa.field("family", _CATEGORY, nullable=False),  # FS, FR, EFS, FE, or `real`
        pa.field("domain", _CATEGORY, nullable=False),  # the reals that it belongs to: ff, cdf, …
        pa.field("dataset", _CATEGORY, nullable=False),
        pa.field("video", _CATEGORY),  # null: a photograph
        pa.field("frame", pa.int32()),
        pa.field("media", _CATEGORY, nullable=False),  # image, or video: a file to decode
        pa.field("identity", pa.string()),  # of a pair: the person who was filmed
        pa.field("identity2", pa.string()),
        pa.field("split", _CATEGORY, nullable=False),  # train, val or test
        pa.field(
            "split_by", _CATEGORY, nullable=False
        ),  # official, identity, or protocol: without official split, tested on only
        pa.field("compression", _CATEGORY),  # c0, c23, c40
        pa.field("mask", pa.string()),  # path of the mask image
        pa.field("size", pa.int64(), nullable=False),  # bytes
    ]
)
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)
ROWS_A_GROUP = 1 << 16


def write(table: pa.Table, metadata: Mapping[str, Any], path: str | Path) -> None:
    """Write an index atomically: `table` has the columns of `SCHEMA`, `metadata` becomes JSON in the schema.

    Raises:
        R2MError: the table has other columns or types.
    """
    if table.schema.names != list(COLUMNS) or table.schema.types != SCHEMA.types:
        raise R2MError(f"{path}: expected the columns and types of an index, got {table.schema.names}")
    content = json.dumps({"version": VERSION, **metadata}, ensure_ascii=False, sort_keys=True)
    with atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata({_KEY: content.encode()}),
            temporary,
            row_group_size=ROWS_A_GROUP,
            compression="zstd",
        )


def read(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the index, or some of its columns.

    Raises:
        R2MError: the file is missing, is not Parquet, is no index, or has no such column.
    """
    _check(path, columns)
    return _read(path, columns, None)


def metadata(path: str | Path) -> dict[str, Any]:
    """Return what the index says of itself: version, root, layouts, seed, shares; raises like `read`."""
    return _check(path, None)


def slice_of(
    path: str | Path,
    *,
    domain: str | None = None,
    method: str | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return the rows of one domain, one method (`real` for the reals), or both; raises like `read`."""
    _check(path, columns)
    wanted = {"domain": domain, "method": method}
    conditions = [pc.field(name) == value for name, value in wanted.items() if value is not None]
    if not conditions:
        return _read(path, columns, None)
    both = conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]
    return _read(path, columns, both)


def slice_digest(table: pa.Table) -> str:
    """Return 16 hex digits over the values of all columns, in the order of the rows.

    Only values count: neither how they are encoded and cut into chunks, nor the root and other metadata.
    """
    whole = hashlib.blake2b(digest_size=8)
    for name in table.schema.names:
        valid, lengths, values = (hashlib.blake2b() for _ in range(3))
        for chunk in table.column(name).chunks:
            plain = chunk.cast(chunk.type.value_type) if pa.types.is_dictionary(chunk.type) else chunk
            valid.update(_bytes(plain.is_valid()))
            if pa.types.is_string(plain.type):
                plain = plain.fill_null("")
                lengths.update(_bytes(pc.binary_length(plain)))
                values.update("".join(plain.to_pylist()).encode())
            else:
                values.update(_bytes(plain.fill_null(0)))
        whole.update(json.dumps([name, table.num_rows]).encode())
        for part in (valid, lengths, values):
            whole.update(part.digest())
    return whole.hexdigest()


def _bytes(values: pa.Array) -> bytes:
    return values.to_numpy(zero_copy_only=False).tobytes()


def _read(path: str | Path, columns: Sequence[str] | None, conditions: pc.Expression | None) -> pa.Table:
    try:
        return pq.read_table(path, columns=None if columns is None else list(columns), filters=conditions)
    except (OSError, pa.ArrowInvalid) as error:
        raise R2MError(f"{path}: the index cannot be read ({error}); `r2m index` makes it anew") from error


def _check(path: str | Path, columns: Sequence[str] | None) -> dict[str, Any]:
    """Return the metadata of an index; raises R2MError where `path` is none, or lacks one of the columns."""
    if not Path(path).is_file():
        raise R2MError(f"{path}: no such index; `r2m index PATH --out {path}` makes it")
    try:
        schema = pq.read_schema(path)
        said = json.loads((schema.metadata or {}).get(_KEY, b"null"))
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise R2MError(f"{path}: expected an index in Parquet, got another file ({error})") from error
    if not isinstance(said, dict) or schema.names != list(COLUMNS):
        raise R2MError(f"{path}: expected an index that `r2m index` made, with {', '.join(COLUMNS)}")
    if said.get("version") != VERSION:
        raise R2MError(
            f"{path}: expected an index of version {VERSION}, got {said.get('version')!r};"
            " `r2m index` makes it anew"
        )
    for name in columns or ():
        if name not in COLUMNS:
            raise R2MError(f"{path}: an index has no column {name!r}{nearest(name, COLUMNS)}")
    return said
