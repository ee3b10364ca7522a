"""Writing of safetensors files piece by piece, into space that is reserved before any work is done."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.files import discard, discard_left, publish, temporary_path
from r2m.models.entries import DTYPES, Entry, raw_bytes
from r2m.models.names import check_name
from r2m.version import __version__

# After so many bytes the system is told to begin its work on the disk, so that little is left for the end.
FLUSH_BYTES = 64 << 20
# Metadata of every file; transformers and huggingface_hub load no file without the format.
ADDED = {"format": "pt", "r2m_version": __version__}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class WeightsWriter:
    """A safetensors file that appears under `path` when it is finished, and not at all before.

    `specs` has dtype and shape by name. Metadata values that are not text are stored as JSON; `format: pt`,
    which loaders of other libraries ask for, and `r2m_version` are added. Those given here reserve the
    header's space: where values are known only at the end, give others of the same length. The same content
    always gives the same bytes. A context manager; `write` is thread-safe.

    Raises:
        KeyError: a dtype that the format has not.
        ValueError: another `format` among the metadata.
        R2MError: a name that the format cannot hold; on entering, no space left or the folder cannot be
            written.
    """

    def __init__(
        self,
        path: str | Path,
        specs: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        metadata: Mapping[str, Any],
    ) -> None:
        self.path = Path(path)
        self._entries = {
            check_name(name, self.path): Entry(dtype, tuple(shape)) for name, (dtype, shape) in specs.items()
        }
        self._metadata = metadata
        self._spans = _layout(self._entries)
        text = _header(self._entries, self._spans, metadata)
        self._header_size = len(text) + -len(text) % 8
        self._data_size = sum(entry.nbytes for entry in self._entries.values())
        self._missing = {name: entry.numel for name, entry in self._entries.items()}
        self._unflushed = 0
        self._flush: Future[None] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with self._errors_named(), ExitStack() as stack:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            discard_left(self.path)
            self._temporary = temporary_path(self.path)
            stack.callback(discard, self._temporary)
            self._file = stack.enter_context(open(self._temporary, "wb", buffering=0))
            _reserve(self._file.fileno(), 8 + self._header_size + self._data_size)
            self._flusher = stack.enter_context(ThreadPoolExecutor(1, "flush"))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of the file's tensor `name`."""
        return self._entries[name].dtype

    def write(self, name: str, start: int, tensor: Tensor) -> None:
        """Write `tensor` as the flat elements from `start` on of tensor `name`, each element once.

        Raises:
            KeyError: no tensor `name`.
            ValueError: another dtype, or elements outside the tensor.
            R2MError: the disk refuses.
        """
        entry = self._entries[name]
        if tensor.dtype != entry.dtype or not 0 <= start <= start + tensor.numel() <= entry.numel:
            elements = f"{tensor.numel()} elements of {tensor.dtype} at {start}"
            raise ValueError(f"{name}: {elements}, in a tensor of {entry.numel} of {entry.dtype}")
        data = raw_bytes(tensor.detach().to("cpu").contiguous())
        with self._errors_named():
            begin = 8 + self._header_size + self._spans[name][0] + start * entry.dtype.itemsize
            _write_at(self._file.fileno(), data, begin)
        with self._lock:
            self._missing[name] -= tensor.numel()
            self._unflushed += len(data)
            if self._unflushed >= FLUSH_BYTES and (self._flush is None or self._flush.done()):
                self._await_flush()
                self._flush = self._flusher.submit(os.fsync, self._file.fileno())
                self._unflushed = 0

    def finish(self, metadata: Mapping[str, Any] | None = None) -> None:
        """Complete the file and let it appear; raises like `complete`."""
        temporary = self.complete(metadata)
        with self._errors_named():
            publish(temporary, self.path)
        self._cleanup.close()

    def complete(self, metadata: Mapping[str, Any] | None = None) -> Path:
        """Write the header with `metadata` (default: those given first); return the temporary path.

        The caller publishes it before the writer is left, which removes it.

        Raises:
            ValueError: elements that were never written, or metadata longer than those given first.
            R2MError: the disk refuses.
        """
        missing = [name for name, count in self._missing.items() if count > 0]
        if missing:
            raise ValueError(f"{self.path}: not all of {missing[0]!r} was written")
        text = _header(self._entries, self._spans, self._metadata if metadata is None else metadata)
        if len(text) > self._header_size:
            raise ValueError(f"{self.path}: a header of {len(text)} bytes, {self._header_size} were reserved")
        prefix = self._header_size.to_bytes(8, "little")
        with self._errors_named():
            _write_at(self._file.fileno(), memoryview(prefix + text.ljust(self._header_size)), 0)
            self._await_flush()
        return self._temporary

    def _await_flush(self) -> None:
        """Wait for the flush begun last and raise its error, which the system reports only once."""
        if self._flush is not None:
            with self._errors_named():
                self._flush.result()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise R2MError(f"{self.path}: cannot be written ({error.strerror})") from error
            needed = _amount(8 + self._header_size + self._data_size)
            free = _amount(shutil.disk_usage(self.path.parent).free)
            raise R2MError(f"{self.path}: no space left: needs {needed}, {free} free") from error


def _layout(entries: Mapping[str, Entry]) -> dict[str, tuple[int, int]]:
    """Return first and last byte of every tensor, in the order of the file."""
    # Widest elements first: every tensor then begins at a multiple of its element size.
    order = sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name))
    spans, offset = {}, 0
    for name in order:
        spans[name] = (offset, offset + entries[name].nbytes)
        offset += entries[name].nbytes
    return spans


def _header(
    entries: Mapping[str, Entry], spans: Mapping[str, tuple[int, int]], metadata: Mapping[str, Any]
) -> bytes:
    """Return the header's JSON; written here, since the library puts metadata in an arbitrary order."""
    if metadata.get("format", ADDED["format"]) != ADDED["format"]:
        raise ValueError(
            f"metadata 'format': {metadata['format']!r}; this key says {ADDED['format']!r} to readers"
        )
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in {**metadata, **ADDED}.items()
    }
    header: dict[str, Any] = {"__metadata__": dict(sorted(texts.items()))}
    for name, span in spans.items():
        dtype, shape = entries[name]
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": list(span)}
    return json.dumps(header, separators=(",", ":")).encode()


def _reserve(descriptor: int, size: int) -> None:
    """Take `size` bytes of the disk; where the filesystem cannot reserve, only set the length."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    os.ftruncate(descriptor, size)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
