"""Weights of a CLIP vision transformer under the names, and in the shapes, of another convention.

Nothing is computed before it is read, and no tensor is kept.
"""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.models.adapters import adapted
from r2m.models.clip_names import (
    CLASS_TOKEN,
    PATCHES,
    POSITIONS,
    QKV,
    TIMM,
    Tower,
    convention_of_modules,
    find_tower,
)
from r2m.models.entries import Entry, Source
from r2m.models.weights import WeightsFile

logger = logging.getLogger(__name__)

# What whole CLIPs have beside the vision transformer, behind what stands before all names.
_BESIDE = re.compile(
    r"(text_model|text|transformer\.resblocks|token_embedding|ln_final|text_projection)\..+"
    r"|positional_embedding|text_projection|logit_scale|logit_bias|attn_mask|(.+\.)?position_ids"
)
FLAG = "--resample-positions"


@dataclass(frozen=True, eq=False)
class Shaped:
    """What is made of one source, in its type and another shape."""

    source: Source
    shape: tuple[int, ...]

    @property
    def entry(self) -> Entry:
        """Type and shape."""
        return Entry(self.source.entry.dtype, self.shape)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are read."""
        return self.source.paths


@dataclass(frozen=True, eq=False)
class Part(Shaped):
    """The elements of a source from `offset` on."""

    offset: int = 0

    def fill(self, view: Tensor, start: int) -> None:
        """Copy the flat elements from `start` on into `view`."""
        self.source.fill(view, self.offset + start)


@dataclass(frozen=True, eq=False)
class Joined:
    """Sources one below the other, their rows in order, in the widest of their types."""

    sources: tuple[Source, ...]

    @property
    def entry(self) -> Entry:
        """Type and shape."""
        dtype = reduce(torch.promote_types, (source.entry.dtype for source in self.sources))
        rows = sum(source.entry.shape[0] for source in self.sources)
        return Entry(dtype, (rows, *self.sources[0].entry.shape[1:]))

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are read."""
        return tuple(path for source in self.sources for path in source.paths)

    def fill(self, view: Tensor, start: int) -> None:
        """Copy the flat elements from `start` on into `view`."""
        stop, offset = start + len(view), 0
        for source in self.sources:
            size = source.entry.numel
            begin, end = max(start, offset), min(stop, offset + size)
            if begin < end:
                piece = torch.empty(end - begin, dtype=source.entry.dtype)
                source.fill(piece, begin - offset)
                view[begin - start : end - start] = piece
            offset += size


@dataclass(frozen=True, eq=False)
class Transposed:
    """A matrix the other way round; it is read whole for every piece."""

    source: Source

    @property
    def entry(self) -> Entry:
        """Type and shape."""
        dtype, (rows, columns) = self.source.entry
        return Entry(dtype, (columns, rows))

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are read."""
        return self.source.paths

    def fill(self, view: Tensor, start: int) -> None:
        """Copy the flat elements from `start` on into `view`."""
        view.copy_(_whole(self.source).T.reshape(-1)[start : start + len(view)])


@dataclass(frozen=True)
class Zeros:
    """Zeros, which no file holds."""

    entry: Entry
    paths: tuple[Path, ...] = ()

    def fill(self, view: Tensor, start: int) -> None:
        """Set `view` to zero."""
        view.zero_()


@dataclass(frozen=True, eq=False)
class Resampled(Shaped):
    """A position embedding of the class token and a square grid of patches, for a grid of another size.

    By timm's `resample_abs_pos_embed`: bicubic and antialiased, the class token's as it is.
    """

    def fill(self, view: Tensor, start: int) -> None:
        """Compute the flat elements from `start` on into `view`."""
        from timm.layers import resample_abs_pos_embed

        *_, count, width = self.shape
        positions = _whole(self.source).reshape(1, -1, width)
        side = math.isqrt(count - 1)
        view.copy_(resample_abs_pos_embed(positions, [side, side]).reshape(-1)[start : start + len(view)])


def _whole(source: Source) -> Tensor:
    tensor = torch.empty(source.entry.numel, dtype=source.entry.dtype)
    source.fill(tensor, 0)
    return tensor.reshape(source.entry.shape)


def in_convention_of(weights: WeightsFile, base: WeightsFile, head_prefix: str | None = None) -> WeightsFile:
    """Return open weights of a CLIP vision transformer under the names and in the shapes of the `base`.

    They stay as they are where both have one convention, or where either holds no such transformer. The
    projection into the space of texts is taken along if the base has one of that shape. What else a whole
    CLIP holds is left out where the base has nothing of the name. All other tensors, a head perhaps, keep
    their names, but for what stands before the whole model's.

    Raises:
        R2MError: q, k or v is missing, or of another shape than the others.
    """
    own, target = find_tower(weights.entries), find_tower(base.entries)
    if own is None or target is None or own.convention is target.convention:
        return weights
    return _Conversion(weights, own, target, base, head_prefix).run()


def adapted_in_convention(adapter: WeightsFile, base: WeightsFile) -> WeightsFile:
    """Return the model that a LoRA adapter makes of a `base`, whose names may be of another convention.

    The adapter is applied to the base under the names that the adapter has, and the sum renamed.

    Raises:
        R2MError: an adapter that cannot be applied (`r2m.models.adapters.adapted`).
    """
    target = find_tower(base.entries)
    named = [_weight_name(name) for name in adapter.entries]
    convention = convention_of_modules(named) if target is not None else None
    if target is None or convention is None or convention is target.convention:
        return adapted(adapter, base)
    view = _Conversion(base, target, Tower(convention, convention.tower, target.depth, {}), None).run()
    return in_convention_of(adapted(adapter, view), base)


def _weight_name(name: str) -> str:
    return re.sub(r"\.lora_[AB](\.[^.]+)?\.weight$", ".weight", name)


def with_positions_of(weights: WeightsFile, base: WeightsFile, resample: bool) -> WeightsFile:
    """Return open weights under the names of the `base` with a position embedding of its size, if a CLIP's.

    Raises:
        R2MError: it is of another size and not to be resampled, or of a grid that is no square.
    """
    tower = find_tower(base.entries)
    if tower is None:
        return weights
    name, patches = (tower.own[tower.roles[role][0]] for role in (POSITIONS, PATCHES))
    if name not in weights.entries or patches not in weights.entries:
        return weights
    shape, wanted = weights.entries[name].shape, base.entries[name].shape
    is_other_model = weights.entries[patches].shape != base.entries[patches].shape
    if shape == wanted or is_other_model or len(shape) < 2 or shape[-1] != wanted[-1]:
        return weights
    text = f"{weights.path}: {name} is for {_grid(shape)}, but {_grid(wanted)} in {base.path}"
    if not resample:
        raise R2MError(
            f"{text}: the models take images of different sizes; {FLAG} resamples it to the base's"
        )
    if _side(shape) is None or _side(wanted) is None:
        raise R2MError(f"{text}; only square grids can be resampled")
    note = f"its {name!r} is resampled from {_grid(shape)} to {_grid(wanted)}"
    logger.info("%s: %s", weights.path, note)
    sources = {key: weights.source(key) for key in weights.entries}
    sources[name] = Resampled(sources[name], wanted)
    return weights.replaced(sources, weights.own_names, [*weights.notes, note], weights.computed)


def _side(shape: Sequence[int]) -> int | None:
    side = math.isqrt(max(shape[-2] - 1, 0))
    return side if side and side**2 == shape[-2] - 1 else None


def _grid(shape: Sequence[int]) -> str:
    side = _side(shape)
    return f"{side} × {side} patches" if side is not None else f"{shape[-2]} positions, no square of patches"


class _Conversion:
    """One conversion, from the tower `own` of open weights to names of the tower `target`.

    `base` is what holds the target; None for one that is wanted, but is in no file.
    """

    def __init__(
        self,
        weights: WeightsFile,
        own: Tower,
        target: Tower,
        base: WeightsFile | None,
        head_prefix: str | None = None,
    ) -> None:
        self.weights, self.own, self.target, self.base = weights, own, target, base
        self.head_prefix = head_prefix
        self.sources: dict[str, Source] = {}
        self.own_names: dict[str, str] = {}
        self.used: set[str] = set()
        self.left_out: list[str] = []

    def run(self) -> WeightsFile:
        example = self._tower()
        self._projection()
        self._rest()
        note = (
            f"its names are {self.own.convention.title}, mapped to {self.target.convention.title}: {example}"
        )
        if self.left_out:
            shown = ", ".join(map(repr, self.left_out[:3]))
            more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            note += f"; left out, since the base has no such tensors: {shown}{more}"
        if self.base is None:
            return self.weights.replaced(
                self.sources, self.own_names, self.weights.notes, self.weights.computed
            )
        logger.info("%s: %s", self.weights.path, note)
        notes = [*self.weights.notes, note]
        return self.weights.replaced(self.sources, self.own_names, notes, self.weights.computed)

    def _tower(self) -> str:
        """Convert the transformer; return an example of what became what."""
        example = ""
        targets = self.target.names(self.own.depth)
        for role, names in self.own.roles.items():
            present = [name for name in names if name in self.own.own]
            if not present:
                continue
            if len(present) < len(names):
                missing = next(name for name in names if name not in present)
                raise R2MError(f"{self.weights.path}: has {present[0]!r}, but lacks {missing!r}")
            sources = [self.weights.source(self.own.own[name]) for name in names]
            self.used.update(names)
            for target, source in zip(targets[role], self._shaped(role, sources), strict=True):
                self._add(target, source)
            if role == f"blocks.0.{QKV[0]}":
                example = f"{' and '.join(map(repr, names))} to {' and '.join(map(repr, targets[role]))}"
        return example

    def _shaped(self, role: str, sources: list[Source]) -> list[Source]:
        """Return the sources of one role in the number and the shapes of the target's convention."""
        if role in (CLASS_TOKEN, POSITIONS):
            (source,) = sources
            ends = source.entry.shape[-1:] if role == CLASS_TOKEN else source.entry.shape[-2:]
            batch = {CLASS_TOKEN: (1, 1), POSITIONS: (1,)}[role]
            shape = (*batch, *ends) if self.target.convention.has_batch else ends
            if math.prod(shape) != source.entry.numel:
                raise R2MError(f"{self.weights.path}: {self._name(role)} has shape {source.entry.shape}")
            return [Part(source, shape)]
        if not role.endswith(QKV):
            return sources
        count = len(self.target.convention.inside[role.split(".", 2)[2]])
        self._check_qkv(role, sources)
        if count == len(sources):
            return sources
        if count == 1:
            return [Joined(tuple(sources))]
        (source,) = sources
        rows, *columns = source.entry.shape
        shape = (rows // count, *columns)
        return [Part(source, shape, index * math.prod(shape)) for index in range(count)]

    def _check_qkv(self, role: str, sources: list[Source]) -> None:
        """Raise R2MError unless q, k and v are of one size, and square where they are matrices."""
        shapes = [source.entry.shape for source in sources]
        rows, *columns = shapes[0]
        width = rows * len(sources) / 3
        if len(set(shapes)) > 1 or width % 1 or any(one != width for one in columns) or len(columns) > 1:
            raise R2MError(
                f"{self.weights.path}: {self._name(role)}: expected square q, k and v of one size, got"
                f" {' and '.join(map(str, shapes))}"
            )

    def _name(self, role: str) -> str:
        return self.own.own[self.own.roles[role][0]]

    def _projection(self) -> None:
        """Convert the projection into the space of texts if the target has it, and no head of that name."""
        own, target = self.own, self.target
        name = own.projection
        if name not in own.own:
            return
        source = self.weights.source(own.own[name])
        if len(source.entry.shape) != 2:
            return
        if own.convention.projects_transposed != target.convention.projects_transposed:
            source = Transposed(source)
        raw = target.own.get(target.projection)
        if self.base is None:
            fits = own.convention is not TIMM and target.convention is not TIMM
        else:
            fits = raw is not None and self.base.entries[raw].shape == source.entry.shape
        if not fits and (own.convention is TIMM or self.base is None):
            return  # a head, or left as it is for the way back
        self.used.add(name)
        if not fits:
            self.left_out.append(own.own[name])
            return
        self._add(target.projection, source)
        bias = self._bias(own)
        if own.convention is TIMM and bias is not None:
            self.used.add(bias)
            if self.weights.tensor(own.own[bias]).any():
                raise R2MError(
                    f"{self.weights.path}: {own.own[bias]!r} is not zero, but the base's projection has no"
                    " bias"
                )
        bias = self._bias(target)
        if target.convention is TIMM and bias is not None:
            self._add(bias, Zeros(Entry(source.entry.dtype, source.entry.shape[:1])))

    @staticmethod
    def _bias(tower: Tower) -> str | None:
        name = tower.projection.removesuffix("weight") + "bias"
        return name if name in tower.own else None

    def _rest(self) -> None:
        """Take over what is not the tower's, or leave it out."""
        known = self.target.own
        for key, name in self.own.own.items():
            if key in self.used:
                continue
            bare = key.removeprefix(self.own.root)
            forms = [self.target.root + bare, bare, key]
            in_base = [form for form in forms if form in known]
            heads = [form for form in forms if self.head_prefix and form.startswith(self.head_prefix)]
            if self.base is not None and not in_base and not heads and _BESIDE.fullmatch(bare):
                self.left_out.append(name)
                continue
            self._add([*in_base, *heads, bare][0], self.weights.source(name), self.weights.own_names[name])

    def _add(self, key: str, source: Source, own_name: str | None = None) -> None:
        name = self.target.own.get(key, key)
        if name in self.sources:
            raise R2MError(f"{self.weights.path}: two of its tensors would be called {name!r}")
        if own_name is None:
            own_name = name if self.base is None else self.base.own_names.get(name, name)
        self.sources[name], self.own_names[name] = source, own_name
