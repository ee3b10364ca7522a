"""The files of a merge: opened and checked against each other, read piece by piece, and watched."""

import fnmatch
import json
import math
import os
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.gram import GramCache, grams
from r2m.merge.kinds import first_names
from r2m.merge.recipe import Recipe
from r2m.merge.stream import PIECE_ENTRIES, TensorStream
from r2m.merge.tensors import buffer_warnings, changed_buffers, refuse_quantized
from r2m.models import checkpoint
from r2m.models.digests import TensorDigest, weights_digest
from r2m.models.entries import raw_bytes
from r2m.models.specialists import check_names, open_base, open_like
from r2m.models.weights import Entry, WeightsFile
from r2m.models.writer import WeightsWriter


class Watch:
    """Sizes and times of files when they were opened.

    Renaming another file over one of them does no harm: the file that was opened is still read.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._states = {path: os.stat(path) for path in paths}

    def check(self) -> None:
        """Raise R2MError for a file that was written to since then."""
        for path, before in self._states.items():
            try:
                after = os.stat(path)
            except OSError:  # removed, or on a disk that went away: reading told of that
                continue
            is_same_file = (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
            if is_same_file and (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise R2MError(
                    f"{path}: was written to while it was merged, so that old and new weights would be mixed;"
                    " merge again when it is complete"
                )


@dataclass(frozen=True)
class Inputs:
    """Open files, and which tensors are merged, belong to the head, or are copied from the base.

    `buffers` are integer tensors that differ from the base, with the specialists in which they do.
    """

    base: WeightsFile
    specialists: dict[str, WeightsFile]
    statistics: dict[str, WeightsFile]
    merged: tuple[str, ...]
    head: tuple[str, ...]
    copied: tuple[str, ...]
    buffers: dict[str, list[str]]
    watch: Watch

    @property
    def files(self) -> list[WeightsFile]:
        """All files that are read."""
        return [self.base, *self.specialists.values(), *self.statistics.values()]

    @property
    def warnings(self) -> list[str]:
        """What headers and integer tensors show to be odd."""
        texts = buffer_warnings(self.buffers)
        for name, specialist in self.specialists.items():
            if specialist.computed:
                continue
            differing = [
                key
                for key in self.merged
                if key in specialist.entries and specialist.entries[key].dtype != self.base.entries[key].dtype
            ]
            if differing:
                dtype, base_dtype = (file.entries[differing[0]].dtype for file in (specialist, self.base))
                texts.append(
                    f"{name}: {differing[0]} ({len(differing)} in all) is {dtype}, in the base {base_dtype}"
                )
        return texts


def open_inputs(recipe: Recipe, stack: ExitStack, allow_other_base: bool) -> Inputs:
    """Open and check the files of a merge; `stack` closes them.

    Raises:
        R2MError: a file that cannot be read, tensors that do not fit together, a specialist of another base,
            or a pattern or name that fits nothing.
    """
    base = stack.enter_context(open_base(recipe.base))
    specialists = {
        name: stack.enter_context(open_like(path, base, recipe.head_prefix, recipe.resample_positions))
        for name, path in sorted(recipe.specialists.items())
    }
    for specialist in specialists.values():
        check_names(specialist, base)
    if recipe.statistics and set(recipe.statistics) != set(specialists):
        raise R2MError(
            f"statistics: expected those of {', '.join(specialists)}, got {', '.join(recipe.statistics)}"
        )
    statistics = {
        name: stack.enter_context(open_like(path, base, recipe.head_prefix))
        for name, path in sorted(recipe.statistics.items())
    }
    watch = Watch(path for file in (base, *specialists.values(), *statistics.values()) for path in file.files)
    partial = _all_state_this_base(base, specialists, allow_other_base)
    head = _head(recipe.head_prefix, base, specialists)
    names = {key for file in (base, *specialists.values()) for key in file.entries}
    excluded = _excluded(recipe.exclude, names.difference(head), head)
    merged = []
    for key, entry in base.entries.items():
        if key in head or key in excluded:
            continue
        _check_tensor(key, entry, base, specialists, partial=partial)
        if entry.dtype.is_floating_point and entry.numel > 0:
            merged.append(key)
    for specialist in specialists.values():
        _check_extra(specialist, base, set(head) | excluded)
    if not merged:
        raise R2MError(f"{base.path}: no floating-point tensor is left to merge")
    copied = tuple(key for key in base.entries if key not in head and key not in merged)
    for file in (base, *specialists.values()):
        refuse_quantized(file, head)
    buffers = changed_buffers(base, specialists, [key for key in copied if key not in excluded])
    return Inputs(base, specialists, statistics, tuple(merged), head, copied, buffers, watch)


def _all_state_this_base(
    base: WeightsFile, specialists: Mapping[str, WeightsFile], allow_other_base: bool
) -> bool:
    """Whether all specialists' metadata say that they were made from `base`; none is from another."""
    stated = {name: file.metadata.get("base_hash") for name, file in specialists.items()}
    if not any(stated.values()):
        return False
    base_digest = weights_digest(base)
    for name, digest in stated.items():
        if digest is not None and digest != base_digest and not allow_other_base:
            raise R2MError(
                f"{specialists[name].path}: its metadata say that {name} was made from the base"
                f" {digest[:19]}…, but {base.path} is {base_digest[:19]}…;"
                " --allow-other-base merges it all the same"
            )
    return all(digest == base_digest for digest in stated.values())


def _head(prefix: str | None, base: WeightsFile, specialists: Mapping[str, WeightsFile]) -> tuple[str, ...]:
    """Return the names of the head's tensors, which the base may lack."""
    if prefix is None:
        return ()
    names = {
        key
        for file in (base, *specialists.values())
        for key, own_name in file.own_names.items()
        if key.startswith(prefix) or own_name.startswith(prefix)
    }
    if not names:
        raise R2MError(f"head_prefix {prefix!r}: no tensor has a name that begins so")
    return tuple(sorted(names))


def _excluded(patterns: Iterable[str], names: Iterable[str], head: Iterable[str]) -> set[str]:
    excluded: set[str] = set()
    names = list(names)
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches and fnmatch.filter(head, pattern):
            raise R2MError(f"exclude {pattern!r}: fits the head alone, which --head decides on")
        if not matches:
            raise R2MError(f"exclude {pattern!r}: fits no tensor of the base or of a specialist")
        excluded.update(matches)
    return excluded


def _check_tensor(
    key: str, entry: Entry, base: WeightsFile, specialists: Mapping[str, WeightsFile], partial: bool
) -> None:
    """Check one tensor of the base in all specialists; `partial` ones may lack what did not change."""
    for specialist in specialists.values():
        counterpart = specialist.entries.get(key)
        if counterpart is None:
            if partial:
                continue
            raise R2MError(
                f"{specialist.path}: lacks {key} {entry.shape}, which {base.path} has; --exclude {key} keeps"
                " the base's"
            )
        if counterpart.shape != entry.shape:
            raise R2MError(
                f"{specialist.path}: {key} has shape {counterpart.shape}, but {entry.shape} in {base.path}"
            )
        if counterpart.dtype.is_floating_point != entry.dtype.is_floating_point:
            raise R2MError(
                f"{specialist.path}: {key} is {counterpart.dtype}, but {entry.dtype} in {base.path};"
                " quantized weights have to be dequantized before"
            )


def _check_extra(specialist: WeightsFile, base: WeightsFile, expected: set[str]) -> None:
    for key, entry in specialist.entries.items():
        if key not in base.entries and key not in expected:
            raise R2MError(
                f"{specialist.path}: has {key} {entry.shape}, which {base.path} lacks; --exclude {key} leaves"
                " it out, and if it is the head, say so by --head-prefix"
            )


def output_dtype(name: str | None, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that a tensor of `dtype` is written in, where `name` asks for another."""
    return getattr(torch, name) if name is not None and dtype.is_floating_point else dtype


class FileScratch(MutableMapping[str, Tensor]):
    """Tensors by name in an unnamed temporary file of `folder`, gone when this object or the process is.

    What is written waits in the system's file cache at first, not in this process's memory.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder = folder
        self._device = device
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
            for offset in range(0, len(data), 2**30):
                os.pwrite(self._file.fileno(), data[offset : offset + 2**30], start + offset)
        except OSError as error:
            raise R2MError(f"{self._folder}: cannot write intermediate tensors ({error.strerror})") from error
        self._places[key] = start, tensor.dtype, tuple(tensor.shape)

    def __getitem__(self, key: str) -> Tensor:
        """Read a tensor back, onto the device."""
        start, dtype, shape = self._places[key]
        tensor = torch.empty(shape, dtype=dtype)
        if tensor.numel():
            view = raw_bytes(tensor)
            offset = 0
            while offset < len(view):
                offset += os.preadv(self._file.fileno(), [view[offset:]], start + offset)
        return tensor.to(self._device)

    def __delitem__(self, key: str) -> None:
        """Forget a tensor; its place in the file is not used again."""
        del self._places[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


# Entries of the base that are read at a time beside a whole tensor, which takes the rest of the cache.
BASE_PIECE = 2**17

# Entries of two tensors that are compared before their rest.
FIRST_ENTRIES = 64


class FileSource:
    """Task vectors as differences of files: a base and specialists with the same tensors.

    A tensor that a specialist lacks did not change in it. The caller sets `unchanged` once
    it knows which tensors equal the base in every specialist. While `is_first_reading`, reading a tensor's
    pieces in order by `task_vectors` also hashes every file's bytes; `digests` has one hash per file (base
    first) and tensor.
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
        self.shapes: Mapping[str, tuple[int, ...]] = {key: base.entries[key].shape for key in sorted(keys)}
        self.unchanged: frozenset[str] = frozenset()
        self.is_first_reading = False
        self._files = (base, *specialists.values())
        self._statistics = [statistics[name] for name in self.names] if statistics else []
        self._device = device
        self._scratch_folder = scratch_folder
        self._hashers: dict[tuple[int, str], TensorDigest] = {}
        self._digests: tuple[dict[str, str], ...] = tuple({} for _ in self._files)
        self._local = threading.local()

    def base(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀, without reading again what this thread just read with the task vectors."""
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

    def original(self, key: str, start: int, stop: int) -> Tensor:
        """Return entries of θ₀ in the type that they are stored in."""
        return self._read(0, key, start, stop)

    def are_equal(self, first: int, second: int, keys: Collection[str]) -> bool:
        """Tell whether two specialists have equal tensors `keys`, by their digests."""
        base, left, right = (self._digests[index] for index in (0, first + 1, second + 1))
        return all(left.get(key, base[key]) == right.get(key, base[key]) for key in keys)

    def not_finite(self, key: str) -> R2MError:
        """Return the error that names the file with NaN or infinite values in a tensor."""
        for file in self._files:
            if key in file.entries and not file.tensor(key).isfinite().all():
                return R2MError(
                    f"{file.path}: {key} holds NaN or infinite values; --allow-nonfinite merges all the same"
                )
        return R2MError(f"{key}: a task vector exceeds the range of float32")

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

    def _are_equal(self, key: str, other_key: str) -> bool:
        return all(self._are_equal_in(index, key, other_key) for index in range(len(self._files)))

    def _are_equal_in(self, index: int, key: str, other_key: str) -> bool:
        is_stored = [name in self._files[index].entries for name in (key, other_key)]
        if not any(is_stored):
            return True
        file, size = self._files[index], math.prod(self.shapes[key])
        if not all(is_stored) or file.entries[key].dtype != file.entries[other_key].dtype:
            return False
        # The first few entries tell nearly all tensors apart.
        cuts = [0, *range(min(size, FIRST_ENTRIES), size, PIECE_ENTRIES), size]
        return all(
            torch.equal(file.read(key, start, stop), file.read(other_key, start, stop))
            for start, stop in pairwise(cuts)
        )

    def scratch(self) -> MutableMapping[str, Tensor]:
        """Return a place on disk."""
        return FileScratch(self._scratch_folder, self._device)

    def digests(self, index: int) -> dict[str, str]:
        """Return a file's (0: the base's) tensors' digests, as far as they were read for the first time."""
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
        if self.is_first_reading:
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


def through_cache(
    path: Path, stream: TensorStream, identities: Sequence[str]
) -> tuple[dict[str, Tensor], GramCache | None]:
    """Return the Grams (K, K) of `stream`, and the new content of the cache `path`; None where it is the old.

    Only what the file lacks is computed. `identities` tell contents apart: the base's, then one for each of
    `stream.names`.

    Raises:
        R2MError: the file exists and is no such cache.
    """
    base, *specialists = identities
    cache = load_gram_cache(path) if path.exists() else GramCache(base, (), {})
    cached = cache.known(base, specialists)
    result = grams(stream, cached)
    is_new = any(key not in cached or cached[key].isnan().any() for key in result)
    return result, cache.updated(base, specialists, result) if is_new else None


def load_gram_cache(path: Path) -> GramCache:
    """Read a cache; raises R2MError where it is missing, corrupt, or another kind of file."""
    tensors, metadata = checkpoint.load(path)
    if metadata.get("kind") != "gram cache":
        raise R2MError(f"{path}: expected a cache of inner products, written by `r2m merge`")
    specialists = tuple(json.loads(metadata["specialists"]))
    size = len(specialists)
    for key, gram in tensors.items():
        if gram.shape != (size, size) or gram.dtype != torch.float64:
            raise R2MError(f"{path}: {key} is {tuple(gram.shape)}, expected ({size}, {size}) in float64")
    return GramCache(metadata["base"], specialists, tensors)


@contextmanager
def written_gram_cache(path: Path, cache: GramCache) -> Iterator[Path]:
    """Write a cache that is to become `path`, and yield its temporary path.

    Raises:
        R2MError: the disk is full.
    """
    metadata = {"kind": "gram cache", "base": cache.base, "specialists": list(cache.specialists)}
    specs = {key: (gram.dtype, tuple(gram.shape)) for key, gram in cache.grams.items()}
    with WeightsWriter(path, specs, metadata) as writer:
        for key, gram in cache.grams.items():
            writer.write(key, 0, gram)
        yield writer.complete()
