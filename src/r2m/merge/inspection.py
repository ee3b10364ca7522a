"""A look into weights files: tensors, norms, provenance, and cosines between files."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.kinds import kind
from r2m.merge.stream import LEAST_PIECE, PIECE_ENTRIES, in_order
from r2m.models.specialists import open_base, open_like
from r2m.models.weights import WeightsFile, named_like, open_weights


def inspect(paths: Sequence[Path], base: Path | None = None, threads: int = 1) -> dict[str, Any]:
    """Return what is in weights files: `files` (one mapping each) and, of several, `cosines` (K, K).

    With `base`, norms and cosines are those of the differences from it; integer tensors have none. A tensor
    that a file lacks counts as zero (as unchanged, with `base`).

    Tensors are called as in the base, or in the first file.

    Raises:
        R2MError: no list of files, a file that cannot be read, or a tensor of two shapes.
    """
    if isinstance(paths, str | Path) or not paths:
        raise R2MError(f"paths: expected a list of weights files, got {str(paths) or 'an empty one'!r}")
    with ExitStack() as stack:
        origin = stack.enter_context(open_base(base)) if base is not None else None
        files: list[WeightsFile] = []
        for path in paths:
            like = origin or (files[0] if files else None)
            files.append(stack.enter_context(_open(path, like, origin is not None)))
        shapes = _shapes([*files, *([origin] if origin else [])])
        keys = [key for key in shapes if any(_is_floating(file, key) for file in files)]
        grams = dict(zip(keys, in_order(lambda key: _gram(key, files, origin), keys, threads), strict=True))
        described = [_describe(file, index, grams) for index, file in enumerate(files)]
        for file, description in zip(files, described, strict=True):
            description["notes"] = [
                *file.notes,
                *_mismatches(file, origin),
                *_other_integers(file, origin),
                *_not_finite(description),
            ]
        total = sum(grams.values(), torch.zeros(len(files), len(files), dtype=torch.float64))
    norms = total.diagonal().clamp(min=0).sqrt()
    cosines = total / torch.outer(norms, norms).clamp(min=1e-300)
    return {
        "base": str(base) if base is not None else None,
        "files": described,
        "cosines": cosines.tolist() if len(files) > 1 else None,
    }


def as_text(inspection: Mapping[str, Any]) -> str:
    """Return what `inspect` found as lines to read; tensors are listed where they are there."""
    lines: list[str] = []
    for number, file in enumerate(inspection["files"], start=1):
        measure = "difference from the base" if inspection["base"] else "norm"
        lines += [
            f"[{number}] {file['file']}",
            f"    {file['count']} tensors, {file['parameters']:,} entries, {file['bytes'] / 1e6:,.1f} MB,"
            f" {', '.join(file['dtypes'])}; {measure} {file['norm']:.6g}",
            *(f"    {note}" for note in file["notes"]),
            *(f"    {key}: {_shortened(value)}" for key, value in sorted(file["metadata"].items())),
        ]
        width = max((len(key) for key in file.get("tensors", {})), default=0)
        for key, tensor in file.get("tensors", {}).items():
            shape = "×".join(map(str, tensor["shape"])) or "scalar"
            norm = "" if tensor["norm"] is None else f"{tensor['norm']:.6g}"
            lines.append(f"    {key:<{width}}  {tensor['dtype']:<8} {tensor['kind']:<11} {shape:<14} {norm}")
    if inspection["cosines"] is not None:
        numbers = range(1, len(inspection["files"]) + 1)
        lines += ["cosines" + (" of the task vectors" if inspection["base"] else "")]
        lines += ["     " + "".join(f"{f'[{number}]':>8}" for number in numbers)]
        lines += [
            f"{f'[{number}]':>5}" + "".join(f"{value:8.4f}" for value in row)
            for number, row in zip(numbers, inspection["cosines"], strict=True)
        ]
    return "\n".join(lines)


def _open(path: Path, like: WeightsFile | None, is_base: bool) -> WeightsFile:
    """Open a file under the names of another, as a specialist of it if that is the base."""
    if like is not None and is_base:
        return open_like(path, like)
    weights = open_weights(path)
    try:
        return named_like(weights, like) if like is not None else weights
    except R2MError as error:
        weights.notes.append(str(error).removeprefix(f"{weights.path}: "))
        return weights


def _shapes(files: Sequence[WeightsFile]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    first: dict[str, WeightsFile] = {}
    for file in files:
        for key, entry in file.entries.items():
            if shapes.setdefault(key, entry.shape) != entry.shape:
                raise R2MError(
                    f"{file.path}: {key} has shape {entry.shape}, but {shapes[key]} in {first[key].path}"
                )
            first.setdefault(key, file)
    return shapes


def _is_floating(file: WeightsFile, key: str) -> bool:
    return key in file.entries and file.entries[key].dtype.is_floating_point


def _gram(key: str, files: Sequence[WeightsFile], origin: WeightsFile | None) -> Tensor:
    """Return the inner products (K, K) of one tensor of all files, in float64."""
    size = next(prod(file.entries[key].shape) for file in files if key in file.entries)
    length = max(LEAST_PIECE, PIECE_ENTRIES // (len(files) + 1))
    gram = torch.zeros(len(files), len(files), dtype=torch.float64)
    for start in range(0, size, length):
        stop = min(start + length, size)
        rows = torch.zeros(len(files), stop - start, dtype=torch.float64)
        for row, file in zip(rows, files, strict=True):
            if _is_floating(file, key):
                row += file.read(key, start, stop)
                if origin is not None and key in origin.entries:
                    row -= origin.read(key, start, stop)
        gram += rows @ rows.T
    return gram


def _describe(file: WeightsFile, index: int, grams: Mapping[str, Tensor]) -> dict[str, Any]:
    squares = {key: gram[index, index].item() for key, gram in grams.items() if _is_floating(file, key)}
    return {
        "file": str(file.path),
        "notes": file.notes,
        "metadata": file.metadata,
        "count": len(file.entries),
        "parameters": sum(entry.numel for entry in file.entries.values()),
        "bytes": sum(entry.nbytes for entry in file.entries.values()),
        "dtypes": sorted({_name(entry.dtype) for entry in file.entries.values()}),
        "norm": sum(squares.values()) ** 0.5,
        "tensors": {
            key: {
                "dtype": _name(entry.dtype),
                "kind": kind(key, entry.shape).value if entry.dtype.is_floating_point else "integer",
                "shape": list(entry.shape),
                "norm": squares[key] ** 0.5 if key in squares else None,
            }
            for key, entry in file.entries.items()
        },
    }


def _mismatches(file: WeightsFile, origin: WeightsFile | None) -> list[str]:
    """Return what a file lacks of the base, and what it has beside it."""
    if origin is None:
        return []
    sides = (
        ("lacks", origin.entries.keys() - file.entries.keys()),
        ("has what the base lacks:", file.entries.keys() - origin.entries.keys()),
    )
    return [f"{relation} {', '.join(sorted(names))}" for relation, names in sides if names]


def _other_integers(file: WeightsFile, origin: WeightsFile | None) -> list[str]:
    """Return which integer tensors, of which there are no norms, differ from the base."""
    if origin is None:
        return []
    names = [
        key
        for key, entry in file.entries.items()
        if not entry.dtype.is_floating_point
        and key in origin.entries
        and not torch.equal(file.tensor(key), origin.tensor(key).to(entry.dtype))
    ]
    return [f"other integers than the base in {', '.join(names)}"] if names else []


def _not_finite(described: Mapping[str, Any]) -> list[str]:
    tensors = described["tensors"].items()
    names = [
        key for key, tensor in tensors if tensor["norm"] is not None and not math.isfinite(tensor["norm"])
    ]
    return [f"NaN or infinite values in {', '.join(names)}"] if names else []


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}…"
