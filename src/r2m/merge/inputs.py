"""The files of a merge, opened and checked against each other before anything is computed."""

import fnmatch
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from r2m.errors import R2MError
from r2m.merge.integers import changed_buffers, describe, refuse_quantized
from r2m.merge.recipe import Recipe
from r2m.merge.watch import Watch
from r2m.models.digests import weights_digest
from r2m.models.specialists import check_names, open_base, open_like
from r2m.models.weights import Entry, WeightsFile


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
        texts = describe(self.buffers)
        for name, specialist in self.specialists.items():
            if specialist.computed:
                continue
            others = [
                key
                for key in self.merged
                if key in specialist.entries and specialist.entries[key].dtype != self.base.entries[key].dtype
            ]
            if others:
                own, base = (file.entries[others[0]].dtype for file in (specialist, self.base))
                texts.append(f"{name}: {others[0]} ({len(others)} in all) is {own}, in the base {base}")
        return texts


def open_inputs(recipe: Recipe, stack: ExitStack, allow_other_base: bool) -> Inputs:
    """Open and check the files of a merge; `stack` closes them.

    Raises:
        R2MError: a file that cannot be read, tensors that do not fit together, a specialist of another base,
            or a pattern or name that fits nothing.
    """
    base = stack.enter_context(open_base(recipe.base))
    specialists = {
        name: stack.enter_context(open_like(path, base, recipe.head_prefix))
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
    own = weights_digest(base)
    for name, digest in stated.items():
        if digest is not None and digest != own and not allow_other_base:
            raise R2MError(
                f"{specialists[name].path}: its metadata say that {name} was made from the base"
                f" {digest[:19]}…, but {base.path} is {own[:19]}…; --allow-other-base merges it all the same"
            )
    return all(digest == own for digest in stated.values())


def _head(prefix: str | None, base: WeightsFile, specialists: Mapping[str, WeightsFile]) -> tuple[str, ...]:
    """Return the names of the head's tensors, which the base may lack."""
    if prefix is None:
        return ()
    names = {
        key
        for file in (base, *specialists.values())
        for key, own in file.own_names.items()
        if key.startswith(prefix) or own.startswith(prefix)
    }
    if not names:
        raise R2MError(f"head_prefix {prefix!r}: no tensor has a name that begins so")
    return tuple(sorted(names))


def _excluded(patterns: Iterable[str], names: Iterable[str], head: Iterable[str]) -> set[str]:
    found: set[str] = set()
    names = list(names)
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches and fnmatch.filter(head, pattern):
            raise R2MError(f"exclude {pattern!r}: fits the head alone, which --head decides on")
        if not matches:
            raise R2MError(f"exclude {pattern!r}: fits no tensor of the base or of a specialist")
        found.update(matches)
    return found


def _check_tensor(
    key: str, entry: Entry, base: WeightsFile, specialists: Mapping[str, WeightsFile], partial: bool
) -> None:
    """Check one tensor of the base in all specialists; `partial` ones may lack what did not change."""
    for specialist in specialists.values():
        other = specialist.entries.get(key)
        if other is None:
            if partial:
                continue
            raise R2MError(
                f"{specialist.path}: lacks {key} {entry.shape}, which {base.path} has; --exclude {key} keeps"
                " the base's"
            )
        if other.shape != entry.shape:
            raise R2MError(
                f"{specialist.path}: {key} has shape {other.shape}, but {entry.shape} in {base.path}"
            )
        if other.dtype.is_floating_point != entry.dtype.is_floating_point:
            raise R2MError(
                f"{specialist.path}: {key} is {other.dtype}, but {entry.dtype} in {base.path}; quantized"
                " weights have to be dequantized before"
            )


def _check_extra(specialist: WeightsFile, base: WeightsFile, known: set[str]) -> None:
    for key, entry in specialist.entries.items():
        if key not in base.entries and key not in known:
            raise R2MError(
                f"{specialist.path}: has {key} {entry.shape}, which {base.path} lacks; --exclude {key} leaves"
                " it out, and if it is the head, say so by --head-prefix"
            )


def output_dtype(name: str | None, own: torch.dtype) -> torch.dtype:
    """Return the dtype that a tensor of dtype `own` is written in."""
    return getattr(torch, name) if name is not None and own.is_floating_point else own
