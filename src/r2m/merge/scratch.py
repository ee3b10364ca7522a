"""Tensors that wait on disk from one pass over the model to the next."""

import os
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.models.entries import raw_bytes


class FileScratch(MutableMapping[str, Tensor]):
    """Tensors by name in an unnamed temporary file of `folder`, gone when this object or the process is.

    What is written waits in the system's file cache at first, not in this process's memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._places: dict[str, tuple[int, torch.dtype, tuple[int, ...]]] = {}
        self._end = 0
        self._lock = Lock()

    def __setitem__(self, key: str, tensor: Tensor) -> None:
        """Write a tensor; raises R2MError where the disk is full."""
        data = raw_bytes(tensor.detach().cpu().contiguous())
        with self._lock:
            start, self._end = self._end, self._end + len(data)
        try:
            for done in range(0, len(data), 2**30):
                os.pwrite(self._file.fileno(), data[done : done + 2**30], start + done)
        except OSError as error:
            raise R2MError(f"{self._folder}: cannot write intermediate tensors ({error.strerror})") from error
        self._places[key] = start, tensor.dtype, tuple(tensor.shape)

    def __getitem__(self, key: str) -> Tensor:
        """Read a tensor back, on the CPU."""
        start, dtype, shape = self._places[key]
        tensor = torch.empty(shape, dtype=dtype)
        if tensor.numel():
            view = raw_bytes(tensor)
            done = 0
            while done < len(view):
                done += os.preadv(self._file.fileno(), [view[done:]], start + done)
        return tensor

    def __delitem__(self, key: str) -> None:
        """Forget a tensor; its place in the file is not used again."""
        del self._places[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
