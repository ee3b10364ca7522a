"""Weights files, read piece by piece: safetensors (also sharded) by `pread`, and pickles of plain tensors."""

import json
import logging
import math
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from r2m.errors import R2MError

logger = logging.getLogger(__name__)

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPE_OF = {code: dtype for dtype, code in DTYPES.items()}
WRAPPERS = ("state_dict", "model")
PREFIXES = ("module.", "backbone.", "model.")
INDEX_SUFFIX = ".safetensors.index.json"
SINGLE_NAME = "model.safetensors"
PICKLES = (".pt", ".pth", ".bin")
# The safetensors library reads no longer headers either.
LONGEST_HEADER = 100_000_000


class Entry(NamedTuple):
    """Type and shape of a stored tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class _Stored:
    """A tensor in an open safetensors file, `offset` bytes from its beginning."""

    entry: Entry
    path: Path
    file: FileIO
    offset: int

    def fill(self, view: Tensor, start: int) -> None:
        _read_at(self.file, raw_bytes(view), self.offset + start * self.entry.dtype.itemsize, self.path)


@dataclass(frozen=True)
class _Loaded:
    """A tensor of an unpickled state dict, of any strides."""

    entry: Entry
    tensor: Tensor

    def fill(self, view: Tensor, start: int) -> None:
        stop = start + len(view)
        if self.tensor.is_contiguous():
            view.copy_(self.tensor.view(-1)[start:stop])
        else:  # take() follows the strides, where reshape(-1) would copy the whole tensor for every piece
            view.copy_(self.tensor.take(torch.arange(start, stop)))


_Source = _Stored | _Loaded


class WeightsFile:
    """Open weights, made by `open_weights`; a context manager. Reading is thread-safe.

    `path` is the file, or the index of a sharded one; `files` are all that hold something of it. `entries`
    are sorted by name, values of `metadata` are texts, `notes` tell what was resolved.
    """

    def __init__(
        self,
        path: Path,
        sources: Mapping[str, _Source],
        metadata: dict[str, str],
        notes: list[str],
        opened: ExitStack,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.notes = notes
        self.entries: Mapping[str, Entry] = {name: sources[name].entry for name in sorted(sources)}
        self._sources = sources
        stored = {source.path for source in sources.values() if isinstance(source, _Stored)}
        self.files = tuple(sorted({path, *stored}))
        self._opened = opened

    def read(self, name: str, start: int = 0, stop: int | None = None, out: Tensor | None = None) -> Tensor:
        """Return the flat elements [start, stop) of a tensor (stop − start,), in its stored type.

        They are read into new memory, or into the front of `out`, a contiguous buffer of bytes (n,), of which
        a view is returned. `out` must begin at a multiple of the element size in its own storage.

        Raises:
            KeyError: no tensor `name`.
            ValueError: elements outside the tensor, a buffer too small or not of bytes, or closed.
            R2MError: the file cannot be read, or was truncated meanwhile.
        """
        entry = self.entries[name]
        stop = entry.numel if stop is None else stop
        if not 0 <= start <= stop <= entry.numel:
            raise ValueError(f"{name}: elements [{start}, {stop}) of a tensor of {entry.numel}")
        if not self._sources:
            raise ValueError(f"{self.path}: closed")
        size = (stop - start) * entry.dtype.itemsize
        buffer = torch.empty(size, dtype=torch.uint8) if out is None else out[:size]
        if buffer.dtype != torch.uint8 or buffer.shape != (size,) or not buffer.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous buffer of {size} bytes or more")
        view = buffer.view(entry.dtype)
        if size:
            self._sources[name].fill(view, start)
        return view

    def tensor(self, name: str) -> Tensor:
        """Return a whole tensor in its shape, in memory of its own; raises like `read`."""
        return self.read(name).reshape(self.entries[name].shape)

    def close(self) -> None:
        """Close the files; nothing can be read any more."""
        self._opened.close()
        self._sources = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_weights(path: str | Path) -> WeightsFile:
    """Open the weights in `path` without reading the tensors.

    `path` is a .safetensors file, the index of a sharded one (.safetensors.index.json), a folder that holds
    one such index or one model.safetensors, or a .pt, .pth or .bin file of plain tensors. Wrappers
    (`state_dict`, `model`) are opened and prefixes that all names share (`module.`, `backbone.`, `model.`)
    are taken off; both are logged and kept in `notes`.

    Raises:
        R2MError: missing, corrupt, holds pickled code, tensors of an unknown type, or no tensors.
    """
    path = Path(path)
    notes: list[str] = []
    if path.is_dir():
        path = _file_in_folder(path)
        notes.append(f"weights taken from the folder's {path.name}")
    with ExitStack() as opened:
        sources, metadata = _open(path, opened, notes)
        if not sources:
            raise R2MError(f"{path}: holds no tensors")
        sources = _without_prefixes(sources, path, notes)
        for note in notes:
            logger.info("%s: %s", path, note)
        return WeightsFile(path, sources, metadata, notes, opened.pop_all())


def open_as_stored(path: str | Path) -> WeightsFile:
    """Open one safetensors file of any name without reading the tensors; their names stay as they are.

    Raises:
        R2MError: missing, or corrupt.
    """
    with ExitStack() as opened:
        sources, metadata = _open_safetensors(Path(path), opened)
        return WeightsFile(Path(path), sources, metadata, [], opened.pop_all())


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _open(path: Path, opened: ExitStack, notes: list[str]) -> tuple[Mapping[str, _Source], dict[str, str]]:
    is_index = path.name.endswith(INDEX_SUFFIX)
    if not is_index and path.suffix not in (".safetensors", *PICKLES):
        raise R2MError(
            f"{path}: expected a file .safetensors, .pt, .pth, .bin or {INDEX_SUFFIX}, or a folder"
        )
    if not path.is_file():
        raise R2MError(f"{path}: no such file")
    if is_index:
        return _open_shards(path, opened, notes)
    if path.suffix == ".safetensors":
        return _open_safetensors(path, opened)
    return _open_pickle(path, notes), {}


def _file_in_folder(folder: Path) -> Path:
    found = [
        one for one in sorted(folder.iterdir()) if one.name.endswith(INDEX_SUFFIX) or one.name == SINGLE_NAME
    ]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "neither"
        raise R2MError(f"{folder}: expected exactly one *{INDEX_SUFFIX} or {SINGLE_NAME}, found {names}")
    return found[0]


def _open_safetensors(path: Path, opened: ExitStack) -> tuple[dict[str, _Stored], dict[str, str]]:
    """Open one safetensors file and check its header: 8 bytes of length, JSON, then the tensors' bytes."""
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
    header = _json_object(bytes(text), path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt(path, "its __metadata__ is not a mapping of texts")
    spans = {name: _span(name, content, path) for name, content in header.items()}
    _check_spans(spans, 8 + length, size, path)
    stored = {name: _Stored(entry, path, file, 8 + length + begin) for name, (entry, begin) in spans.items()}
    return stored, metadata


def _json_object(text: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object with unique keys."""
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
    if math.prod(max(one, 1) for one in shape) >= 2**63 or entry.nbytes != offsets[1] - offsets[0]:
        raise _corrupt(path, f"tensor {name!r}: {code} of shape {shape} does not fit the bytes {offsets}")
    return entry, offsets[0]


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(one) is int and one >= 0 for one in values)


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


def _open_shards(
    path: Path, opened: ExitStack, notes: list[str]
) -> tuple[dict[str, _Stored], dict[str, str]]:
    """Open every shard that the index at `path` names; the index's metadata win over those of the shards."""
    try:
        content = _json_object(path.read_bytes(), path)
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    shard_of = content.get("weight_map")
    described = content.get("metadata", {})
    if not isinstance(shard_of, dict) or not all(map(_is_plain_name, shard_of.values())):
        raise R2MError(f"{path}: expected a weight_map of tensor names to files beside it")
    if not isinstance(described, dict):
        raise R2MError(f"{path}: expected a mapping under metadata")
    sources: dict[str, _Stored] = {}
    metadata: dict[str, str] = {}
    for shard in sorted(set(shard_of.values())):
        names = [name for name, one in shard_of.items() if one == shard]
        stored, texts = _open_shard(path, shard, names, opened)
        sources |= {name: stored[name] for name in names}
        metadata |= texts
        if len(stored) > len(names):
            notes.append(f"{len(stored) - len(names)} tensors of {shard} are not in the index and left out")
    texts = {key: one if isinstance(one, str) else json.dumps(one) for key, one in described.items()}
    return sources, metadata | texts


def _open_shard(
    index: Path, shard: str, names: Iterable[str], opened: ExitStack
) -> tuple[dict[str, _Stored], dict[str, str]]:
    path = index.with_name(shard)
    if not path.is_file():
        raise R2MError(f"{index}: the tensor {next(iter(names))!r} is in the shard {shard}, which is missing")
    stored, metadata = _open_safetensors(path, opened)
    for name in names:
        if name not in stored:
            raise R2MError(f"{index}: the shard {shard} lacks the tensor {name!r}")
    return stored, metadata


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name


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


def _open_pickle(path: Path, notes: list[str]) -> dict[str, _Loaded]:
    """Unpickle plain tensors only, memory-mapped but for files of the legacy format."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise R2MError(
            f"{path}: holds pickled Python objects or is corrupt; expected a state dict of plain tensors"
            " (nothing in the file was run)"
        ) from error
    except Exception as error:  # an unpickler meets damage with errors of nearly every kind
        raise R2MError(f"{path}: corrupt, or no checkpoint of PyTorch ({error!r})") from error
    tensors = _unwrapped(content, path, notes)
    return {name: _Loaded(_entry(name, one, path), one.detach()) for name, one in tensors.items()}


def _entry(name: str, tensor: Tensor, path: Path) -> Entry:
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
        kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device.type}".replace("torch.", "")
        raise R2MError(f"{path}: tensor {name!r} is {kind}; expected strided, of {', '.join(DTYPE_OF)}")
    return Entry(tensor.dtype, tuple(tensor.shape))


def _unwrapped(content: Any, path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Return the state dict inside the wrappers that training scripts put around it."""
    while isinstance(content, Mapping):
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        notes.append(f"weights taken from its key {wrapper!r}")
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise R2MError(f"{path}: expected a mapping of names to tensors, got {type(content).__name__}")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise R2MError(f"{path}: holds no tensors; its keys are {sorted(map(str, content))[:8]}")
    return tensors


def _without_prefixes(sources: Mapping[str, _Source], path: Path, notes: list[str]) -> Mapping[str, _Source]:
    """Take off the known prefixes that every backbone tensor has (a head may stand beside it)."""
    while True:
        prefix = next((one for one in PREFIXES if _is_shared(one, sources)), None)
        if prefix is None:
            return sources
        notes.append(f"prefix {prefix!r} removed from the names of its tensors")
        shorter = {name.removeprefix(prefix): source for name, source in sources.items()}
        if len(shorter) < len(sources):
            both = next(name for name in sources if name in shorter and prefix + name in sources)
            raise R2MError(f"{path}: holds both {both!r} and {prefix + both!r}")
        sources = shorter


def _is_shared(prefix: str, names: Mapping[str, Any]) -> bool:
    others = [name for name in names if not name.startswith(prefix)]
    return len(others) < len(names) and all(name.startswith("head.") for name in others)
