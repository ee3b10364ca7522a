"""Blocks read from weights files, piece by piece, into buffers that are used again."""

import math
import threading
from collections.abc import Mapping, MutableMapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from r2m.merge.blocks import PIECE_ENTRIES
from r2m.merge.scratch import FileScratch
from r2m.merge.tied import first_names
from r2m.models.digests import TensorDigest
from r2m.models.weights import WeightsFile

# Of the base beside a whole tensor, so much is read at a time: the rest of the cache is the tensor's.
BASE_PIECE = 2**17

# So many are compared before the rest of two tensors.
FIRST_ENTRIES = 64


class FileSource:
    """Task vectors as differences of files: a base and specialists with the same tensors.

    A tensor that a specialist lacks did not change in it. `unchanged` is set by who has found out which
    tensors equal the base in all. Reading a tensor's pieces in order by
    `task_vectors` while `digesting` also hashes every file's bytes;
    `digests` has one hash a file (base first) and tensor.
    """

    def __init__(
        self,
        base: WeightsFile,
        specialists: Mapping[str, WeightsFile],
        keys: tuple[str, ...],
        device: torch.device,
        scratch_folder: Path,
        statistics: Mapping[str, WeightsFile] | None = None,
    ) -> None:
        self.names = tuple(specialists)
        self.shapes: Mapping[str, tuple[int, ...]] = {key: base.entries[key].shape for key in keys}
        self.unchanged: frozenset[str] = frozenset()
        self.digesting = False
        self._files = (base, *specialists.values())
        self._statistics = [statistics[name] for name in self.names] if statistics else []
        self._device = device
        self._scratch_folder = scratch_folder
        self._hashers: dict[tuple[int, str], TensorDigest] = {}
        self._digests: tuple[dict[str, str], ...] = tuple({} for _ in self._files)
        self._local = threading.local()

    def base(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀; those that this thread has just read with the task vectors are at hand."""
        if getattr(self._local, "at", None) == (key, start, stop):
            return self._local.stack[0]
        return self._read(0, key, start, stop).to(self._device, torch.float32)

    def task_vector(self, index: int, key: str, start: int, stop: int) -> Tensor:
        """Return entries of one τ_k."""
        if key not in self._files[index + 1].entries:
            return torch.zeros(stop - start, device=self._device)
        task_vector = self._read(index + 1, key, start, stop).to(torch.float32)
        for begin in range(start, stop, BASE_PIECE):
            end = min(begin + BASE_PIECE, stop)
            task_vector[begin - start : end - start].sub_(self._read(0, key, begin, end))
        return task_vector.to(self._device)

    def task_vectors(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of all τ_k."""
        if getattr(self._local, "at", None) == (key, start, stop):
            return self._local.stack[1:]
        stack = self._stack(stop - start)
        for index in range(len(self._files)):
            self._read_row(index, key, start, stop, stack[index])
        on_device = stack.to(self._device)
        for row in on_device[1:]:
            row.sub_(on_device[0])
        self._local.at, self._local.stack = (key, start, stop), on_device
        return on_device[1:]

    def average(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of the mean of the specialists' weights θ_k, which may be NaN or infinite."""
        total = torch.zeros(stop - start, dtype=torch.float64)
        for index, file in enumerate(self._files[1:], start=1):
            total += self._read(index if key in file.entries else 0, key, start, stop)
        return (total / len(self.names)).to(self._device, torch.float32)

    def statistic(self, index: int, key: str, start: int, stop: int) -> Tensor | None:
        """Return entries of a specialist's statistics of one tensor, or all of a tensor of another shape."""
        if not self._statistics or key not in self._statistics[index].entries:
            return None
        file = self._statistics[index]
        if file.entries[key].shape == self.shapes[key]:
            return file.read(key, start, stop).to(self._device, torch.float32)
        return file.tensor(key).to(self._device, torch.float32)

    def first_name(self, key: str) -> str:
        """Return the first name of tensors that are equal in every file."""
        return self._first_names[key]

    @cached_property
    def _first_names(self) -> dict[str, str]:
        return first_names(self.shapes, self.shapes, self._are_equal)

    def _are_equal(self, key: str, other: str) -> bool:
        return all(self._are_equal_in(index, key, other) for index in range(len(self._files)))

    def _are_equal_in(self, index: int, key: str, other: str) -> bool:
        held = [one in self._files[index].entries for one in (key, other)]
        if not any(held):
            return True
        file, size = self._files[index], math.prod(self.shapes[key])
        if not all(held) or file.entries[key].dtype != file.entries[other].dtype:
            return False
        # The first few entries tell nearly all tensors apart.
        cuts = [0, *range(min(size, FIRST_ENTRIES), size, PIECE_ENTRIES), size]
        return all(
            torch.equal(file.read(key, start, stop), file.read(other, start, stop))
            for start, stop in pairwise(cuts)
        )

    def scratch(self) -> MutableMapping[str, Tensor]:
        """Return a place on disk."""
        return FileScratch(self._scratch_folder)

    def digests(self, index: int) -> dict[str, str]:
        """Return a file's (0: the base's) tensors' digests, as far as they were read while digesting."""
        return dict(self._digests[index])

    def _stack(self, length: int) -> Tensor:
        """Return this thread's buffer for one piece of all files, (K + 1, n) in float32."""
        size = len(self._files) * length
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            self._local.buffer = buffer = torch.empty(size)
        self._local.at = None
        return buffer[:size].reshape(len(self._files), length)

    def _read_row(self, index: int, key: str, start: int, stop: int, row: Tensor) -> None:
        """Read a piece of one file into `row` (n,), as float32; a tensor that it lacks is the base's."""
        file = self._files[index]
        if key not in file.entries:
            row.copy_(self._local.buffer[: len(row)])
            return
        if file.entries[key].dtype == torch.float32:
            raw = file.read(key, start, stop, out=row.view(torch.uint8))
        else:
            raw = file.read(key, start, stop)
            row.copy_(raw)
        if self.digesting:
            self._digest(index, key, start, raw)

    def _digest(self, index: int, key: str, start: int, raw: Tensor) -> None:
        """Hash the next entries of a tensor; a hash that is complete is kept as text, which takes no room."""
        digest = TensorDigest() if start == 0 else self._hashers.pop((index, key))
        digest.update(raw)
        if start + len(raw) == self._files[index].entries[key].numel:
            self._digests[index][key] = digest.hexdigest()
        else:
            self._hashers[index, key] = digest

    def _read(self, index: int, key: str, start: int, stop: int) -> Tensor:
        return self._files[index].read(key, start, stop)
