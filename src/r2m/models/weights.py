"""Weights files, read piece by piece: safetensors, pickles of plain tensors, shards and folders of either."""

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.models.entries import Entry, Source
from r2m.models.names import canonical, correspondence
from r2m.models.pickles import open_pickle
from r2m.models.safetensors_file import json_object, open_safetensors
from r2m.models.weight_files import Format, identify, locate

logger = logging.getLogger(__name__)


class WeightsFile:
    """Open weights, made by `open_weights`; a context manager. Reading is thread-safe.

    `path` is the file, or the index of a sharded one; `files` are all that hold something of it. `entries`
    are sorted by name, `own_names` has what the file itself calls them; `computed` tells that some are sums
    made when they are read. Values of `metadata` are texts, `notes` tell what was resolved.
    """

    def __init__(
        self,
        path: Path,
        sources: Mapping[str, Source],
        metadata: dict[str, str],
        notes: list[str],
        opened: ExitStack,
        own_names: Mapping[str, str] | None = None,
        computed: bool = False,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.notes = notes
        self.entries: Mapping[str, Entry] = {name: sources[name].entry for name in sorted(sources)}
        self.own_names = own_names or {name: name for name in sources}
        self.computed = computed
        self._sources = sources
        self.files = tuple(sorted({path}.union(*(source.paths for source in sources.values()))))
        self._opened = opened

    @property
    def digest_names(self) -> dict[str, str]:
        """What digests call the tensors: their own names without the known prefixes that all have."""
        shorter = canonical(self.own_names.values())
        return {name: shorter[own] for name, own in self.own_names.items()}

    def source(self, name: str) -> Source:
        """Return what a tensor is read from; raises KeyError where there is no tensor `name`."""
        return self._sources[name]

    def replaced(
        self,
        sources: Mapping[str, Source],
        own_names: Mapping[str, str],
        notes: list[str],
        computed: bool = False,
    ) -> Self:
        """Return other tensors of these open weights; closing either closes the files."""
        return type(self)(self.path, sources, self.metadata, notes, self._opened, own_names, computed)

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
    """Open the weights in `path` without reading the tensors, under the names that they have there.

    `path` is a file of safetensors or of `torch.save` (plain tensors), an index of shards of either, or a
    folder that holds one of these; which it is tells its content. A training checkpoint is opened where its
    weights are (`r2m.models.state_dicts.unwrapped`); what was chosen is logged and kept in `notes`.

    Raises:
        R2MError: missing, corrupt, holds pickled code, tensors of an unknown type, or no tensors.
    """
    path, notes = locate(Path(path))
    with ExitStack() as opened:
        sources, metadata = _open(path, opened, notes)
        if not sources:
            raise R2MError(f"{path}: holds no tensors")
        for note in notes:
            logger.info("%s: %s", path, note)
        return WeightsFile(path, sources, metadata, notes, opened.pop_all())


def named_like(weights: WeightsFile, base: WeightsFile, head_prefix: str | None = None) -> WeightsFile:
    """Return open weights under the base's names (`r2m.models.names.correspondence`), and note an example.

    Raises:
        R2MError: several prefixes fit equally well, or two names would become the same.
    """
    try:
        names = correspondence(base.entries, weights.entries, head_prefix)
    except ValueError as error:
        raise R2MError(f"{weights.path}: {error}") from error
    changed = sorted(name for name, target in names.items() if name != target)
    if not changed:
        return weights
    example = next((name for name in changed if names[name] in base.entries), changed[0])
    more = f", and {len(changed) - 1} more names differ so" if len(changed) > 1 else ""
    note = f"its {example!r} is {names[example]!r} in {base.path.name}{more}"
    logger.info("%s: %s", weights.path, note)
    sources = {target: weights.source(name) for name, target in names.items()}
    own_names = {target: weights.own_names[name] for name, target in names.items()}
    return weights.replaced(sources, own_names, [*weights.notes, note])


def _open(path: Path, opened: ExitStack, notes: list[str]) -> tuple[Mapping[str, Source], dict[str, str]]:
    what = identify(path)
    if what == Format.INDEX:
        return _open_shards(path, opened, notes)
    if what == Format.SAFETENSORS:
        return open_safetensors(path, opened)
    return open_pickle(path, notes, mapped=what == Format.ZIP), {}


def _open_shards(
    path: Path, opened: ExitStack, notes: list[str]
) -> tuple[Mapping[str, Source], dict[str, str]]:
    """Open every shard that the index at `path` names; the index's metadata win over those of the shards."""
    try:
        content = json_object(path.read_bytes(), path)
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    shard_of = content.get("weight_map")
    described = content.get("metadata", {})
    if not isinstance(shard_of, dict) or not all(map(_is_plain_name, shard_of.values())):
        raise R2MError(f"{path}: expected a weight_map of tensor names to files beside it")
    if not isinstance(described, dict):
        raise R2MError(f"{path}: expected a mapping under metadata")
    sources: dict[str, Source] = {}
    metadata: dict[str, str] = {}
    for shard in sorted(set(shard_of.values())):
        names = [name for name, stored_in in shard_of.items() if stored_in == shard]
        stored, texts = _open_shard(path, shard, names, opened)
        sources |= {name: stored[name] for name in names}
        metadata |= texts
        if len(stored) > len(names):
            notes.append(f"{len(stored) - len(names)} tensors of {shard} are not in the index and left out")
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
    return sources, metadata | texts


def _open_shard(
    index: Path, shard: str, names: Iterable[str], opened: ExitStack
) -> tuple[Mapping[str, Source], dict[str, str]]:
    path = index.with_name(shard)
    if not path.is_file():
        raise R2MError(f"{index}: the tensor {next(iter(names))!r} is in the shard {shard}, which is missing")
    if identify(path) == Format.INDEX:
        raise R2MError(f"{index}: its shard {shard} is an index itself")
    stored, metadata = _open(path, opened, [])
    for name in names:
        if name not in stored:
            raise R2MError(f"{index}: the shard {shard} lacks the tensor {name!r}")
    return stored, metadata


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name
