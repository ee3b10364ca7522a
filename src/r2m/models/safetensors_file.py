"""Safetensors files: the header checked, the tensors read by `pread`, a piece at a time."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from torch import Tensor

from r2m.errors import R2MError
from r2m.models.entries import DTYPE_OF, Entry, raw_bytes
from r2m.models.names import check_name
from r2m.models.weight_files import LONGEST_HEADER


@dataclass(frozen=True)
class Stored:
    """A tensor in an open safetensors file, `offset` bytes from its beginning."""

    entry: Entry
    path: Path
    file: FileIO
    offset: int

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def fill(self, view: Tensor, start: int) -> None:
        """Read the flat elements from `start` on into `view`."""
        _read_at(self.file, raw_bytes(view), self.offset + start * self.entry.dtype.itemsize, self.path)


def open_safetensors(path: Path, opened: ExitStack) -> tuple[dict[str, Stored], dict[str, str]]:
    """Open a safetensors file and check its header: 8 bytes of length, JSON, then the tensors' bytes.

    Raises:
        R2MError: unreadable or corrupt, tensors of an unknown type, or a name that the format cannot hold.
    """
    try:
        file = opened.enter_context(FileIO(path))
        size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    if size < 8:
        raise _corrupt(path, f"truncated: {size} bytes")
    prefix = bytearray(8)
    _read_at(file, memoryview(prefix), 0, path)
    length = int.from_bytes(prefix, "little")
    if length > min(size - 8, LONGEST_HEADER):
        raise _corrupt(path, f"{size:,} bytes, but its header alone would have {length:,}")
    text = bytearray(length)
    _read_at(file, memoryview(text), 8, path)
    header = json_object(bytes(text), path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt(path, "its __metadata__ is not a mapping of texts")
    spans = {name: _span(name, content, path) for name, content in header.items()}
    _check_spans(spans, 8 + length, size, path)
    stored = {name: Stored(entry, path, file, 8 + length + begin) for name, (entry, begin) in spans.items()}
    return stored, metadata


def json_object(text: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object with unique keys; raises R2MError naming `path`."""
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise _corrupt(path, f"expected a JSON object, got {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in content if names.count(name) > 1)!r} stands there twice")
    return content


def _span(name: str, content: Any, path: Path) -> tuple[Entry, int]:
    """Return type, shape and first byte (after the header) of one tensor."""
    check_name(name, path)
    if not isinstance(content, dict) or content.keys() != {"dtype", "shape", "data_offsets"}:
        raise _corrupt(path, f"tensor {name!r}: expected dtype, shape and data_offsets")
    code, shape, offsets = content["dtype"], content["shape"], content["data_offsets"]
    if not isinstance(code, str) or code not in DTYPE_OF:
        raise R2MError(
            f"{path}: tensor {name!r} has the dtype {code!s}; expected one of {', '.join(DTYPE_OF)}"
        )
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise _corrupt(path, f"tensor {name!r}: shape {shape}, data_offsets {offsets}")
    entry = Entry(DTYPE_OF[code], tuple(shape))
    # Torch counts strides in 64 bits, also those of an empty tensor.
    if math.prod(max(length, 1) for length in shape) >= 2**63 or entry.nbytes != offsets[1] - offsets[0]:
        raise _corrupt(path, f"tensor {name!r}: {code} of shape {shape} does not fit the bytes {offsets}")
    return entry, offsets[0]


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_spans(spans: Mapping[str, tuple[Entry, int]], begin: int, size: int, path: Path) -> None:
    """Check that the tensors fill the file of `size` bytes from `begin` on, without gaps."""
    end = 0
    for name, (entry, offset) in sorted(spans.items(), key=lambda item: (item[1][1], item[1][0].nbytes)):
        if offset != end:
            raise _corrupt(path, f"tensor {name!r} begins at byte {offset:,}, expected {end:,}")
        end += entry.nbytes
    if begin + end != size:
        what = "truncated: " if size < begin + end else ""
        raise _corrupt(path, f"{what}{size:,} bytes, the header promises {begin + end:,}")


def _read_at(file: FileIO, view: memoryview, offset: int, path: Path) -> None:
    """Fill `view` from byte `offset` on."""
    done = 0
    while done < len(view):
        try:
            count = os.preadv(file.fileno(), [view[done:]], offset + done)
        except OSError as error:
            raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
        if count == 0:
            raise R2MError(f"{path}: truncated while it was read: it ends at byte {offset + done:,}")
        done += count


def _corrupt(path: Path, what: str) -> R2MError:
    return R2MError(f"{path}: corrupt or not a safetensors file ({what})")
