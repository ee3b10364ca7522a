"""Two weights files beside each other: which tensors differ, and how much."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r2m.merge.stream import in_order
from r2m.models.adapters import is_adapter
from r2m.models.clip_conversion import adapted_in_convention, in_convention_of
from r2m.models.entries import Entry
from r2m.models.weights import WeightsFile, named_like, open_weights

# Entries of two tensors that are compared at a time, in float64.
PIECE = 2**18


@dataclass(frozen=True)
class Sums:
    """Of two tensors a and b: ‖a‖², ‖b‖², ⟨a, b⟩, ‖a − b‖², max |a − b|, and how many entries differ.

    Entries that are both NaN, or the same infinite number, count as equal.
    """

    first: float = 0.0
    second: float = 0.0
    inner: float = 0.0
    square: float = 0.0
    greatest: float = 0.0
    entries: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        greatest = math.nan if math.isnan(self.greatest + other.greatest) else None
        return Sums(
            self.first + other.first,
            self.second + other.second,
            self.inner + other.inner,
            self.square + other.square,
            max(self.greatest, other.greatest) if greatest is None else greatest,
            self.entries + other.entries,
        )

    def described(self) -> dict[str, Any]:
        """Return norms and the cosine, which are None where a or b is zero."""
        norm, length = math.sqrt(self.square), math.sqrt(self.first)
        product = length * math.sqrt(self.second)
        return {
            "entries": self.entries,
            "norm": norm,
            "relative": norm / length if length > 0 else None,
            "greatest": self.greatest,
            "cosine": min(max(self.inner / product, -1.0), 1.0) if product > 0 else None,
        }


def diff(first: Path, second: Path, threads: int = 1) -> dict[str, Any]:
    """Return how two weights files differ: in names, shapes, types and values, all in all and by tensor.

    Tensors are called as in the first file, whatever known prefix the second has, and a CLIP's whatever
    library it is of; an adapter beside a whole model is the model that it makes of that. Metadata are not
    compared. The sums over all tensors are those of floating ones of one shape. Memory holds a piece of
    either file.

    Raises:
        R2MError: a file that cannot be read, or names that correspond in several ways.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_weights(first))]
        files.append(stack.enter_context(_open_second(second, files[0])))
        left, right = (file.entries for file in files)
        shared = [key for key in left if key in right and left[key].shape == right[key].shape]
        compared = in_order(lambda key: _compared(key, *files), shared, threads)
        sums = dict(zip(shared, compared, strict=True))
        notes = [file.notes for file in files]
    floating = [key for key in shared if _are_floating(left[key], right[key])]
    tensors = {key: _tensor(left[key], right[key], one) for key, one in sums.items()}
    differing = [key for key, tensor in tensors.items() if tensor["entries"]]
    found = {
        "only_in_first": {key: list(left[key].shape) for key in left if key not in right},
        "only_in_second": {key: list(right[key].shape) for key in right if key not in left},
        "other_shapes": {
            key: [list(left[key].shape), list(right[key].shape)]
            for key in left
            if key in right and key not in sums
        },
        "other_types": {
            key: [_name(left[key].dtype), _name(right[key].dtype)]
            for key in left
            if key in right and left[key].dtype != right[key].dtype
        },
        "differing": differing,
    }
    total = sum((sums[key] for key in floating), Sums())
    return {
        "files": [
            {"file": str(path), "notes": own} for path, own in zip((first, second), notes, strict=True)
        ],
        "equal": not any(found.values()),
        "compared": len(sums),
        "total": {
            **total.described(),
            "greatest_in": max(floating, key=lambda key: _rank(sums[key].greatest), default=None),
        },
        **found,
        "tensors": tensors,
    }


def as_text(difference: Mapping[str, Any]) -> str:
    """Return what `diff` found as lines to read, a summary first; equal tensors are not listed."""
    names = [file["file"] for file in difference["files"]]
    lines = [f"[{number}] {name}" for number, name in enumerate(names, start=1)]
    lines += [
        f"    [{number}] {note}"
        for number, file in enumerate(difference["files"], start=1)
        for note in file["notes"]
    ]
    total = difference["total"]
    if difference["equal"]:
        return "\n".join([*lines, f"equal: {difference['compared']} tensors"])
    counts = [
        f"{len(difference['differing'])} of {difference['compared']} tensors differ in values",
        *(
            f"{len(difference[key])} {text}"
            for key, text in (
                ("only_in_first", "only in [1]"),
                ("only_in_second", "only in [2]"),
                ("other_shapes", "of other shapes"),
                ("other_types", "of other types"),
            )
            if difference[key]
        ),
    ]
    lines.append(f"different: {', '.join(counts)}")
    if difference["differing"] and total["greatest_in"] is not None:
        lines.append(
            f"in all: norm {_number(total['norm'])}, relative {_number(total['relative'])}, greatest entry"
            f" {_number(total['greatest'])} in {total['greatest_in']}, cosine {_cosine(total['cosine'])}"
        )
    for number, key in enumerate(("only_in_first", "only_in_second"), start=1):
        lines += [f"only in [{number}]: {name} {_shape(shape)}" for name, shape in difference[key].items()]
    for name, shapes in difference["other_shapes"].items():
        lines.append(f"other shape: {name} {_shape(shapes[0])}, {_shape(shapes[1])}")
    for name, types in difference["other_types"].items():
        lines.append(f"other type: {name} {types[0]}, {types[1]}")
    if difference["differing"]:
        width = max(map(len, difference["differing"]))
        lines.append(
            f"{'tensor':<{width}}  {'norm':>12} {'relative':>12} {'greatest':>12} {'cosine':>10}  entries"
        )
        for name in difference["differing"]:
            one = difference["tensors"][name]
            lines.append(
                f"{name:<{width}}  {_number(one['norm']):>12} {_number(one['relative']):>12}"
                f" {_number(one['greatest']):>12} {_cosine(one['cosine']):>10}  {one['entries']:,}"
            )
    return "\n".join(lines)


def _open_second(path: Path, first: WeightsFile) -> WeightsFile:
    """Open a file under the names of the first, an adapter as the model that it makes of it."""
    weights = open_weights(path)
    if is_adapter(weights.entries) and not is_adapter(first.entries):
        return adapted_in_convention(weights, first)
    return named_like(in_convention_of(weights, first), first)


def _compared(key: str, first: WeightsFile, second: WeightsFile) -> Sums:
    """Return the sums of one tensor of both files, piece by piece."""
    size = first.entries[key].numel
    pieces = [(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]
    return sum(
        (_sums(first.read(key, *piece), second.read(key, *piece)) for piece in pieces),
        Sums(),
    )


def _sums(left: Tensor, right: Tensor) -> Sums:
    """Return the sums of two pieces (n,), n > 0, of any types."""
    if left.is_floating_point() or right.is_floating_point():
        left, right = left.double(), right.double()
        same = (left == right) | (left.isnan() & right.isnan())
    else:
        same = left.long() == right.long()  # float64 does not tell all of them apart
        left, right = left.double(), right.double()
    change = (left - right).masked_fill_(same, 0.0)
    return Sums(
        torch.dot(left, left).item(),
        torch.dot(right, right).item(),
        torch.dot(left, right).item(),
        torch.dot(change, change).item(),
        change.abs_().max().item(),
        len(same) - int(same.sum()),
    )


def _tensor(left: Entry, right: Entry, sums: Sums) -> dict[str, Any]:
    return {
        "shape": list(left.shape),
        "types": [_name(left.dtype), _name(right.dtype)],
        **sums.described(),
    }


def _are_floating(left: Entry, right: Entry) -> bool:
    return left.dtype.is_floating_point and right.dtype.is_floating_point


def _rank(number: float) -> float:
    """Return a number by which NaN is the greatest."""
    return math.inf if math.isnan(number) else number


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
