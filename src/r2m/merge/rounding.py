"""Rounding of merged weights to half precision: how great its errors are, and what does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.merging import Sink

HALF = (torch.float16, torch.bfloat16)
# Entries that are compared at a time, so that they stay in the processor's cache.
PART = 2**17


@dataclass(frozen=True)
class Errors:
    """The greatest rounding errors of some entries, and how many of these became zero or infinite.

    `relative` ones are shares of the magnitude before, of entries that are not zero there. Entries that were
    not finite before have no error, nor have those that became infinite.
    """

    absolute: float = 0.0
    relative: float = 0.0
    to_zero: int = 0
    to_infinity: int = 0

    def __or__(self, other: "Errors") -> "Errors":
        return Errors(
            max(self.absolute, other.absolute),
            max(self.relative, other.relative),
            self.to_zero + other.to_zero,
            self.to_infinity + other.to_infinity,
        )


class Rounded:
    """A sink that rounds what it gets to the types of another, and knows the errors of half precision.

    It wants tensors of such types in float32, or wider where those that they are made of, of `types`, are.
    `permitting` ends the error about values that a type cannot hold; with None they become infinite.
    """

    def __init__(self, sink: Sink, types: Mapping[str, torch.dtype], permitting: str | None) -> None:
        self._sink = sink
        self._types = types
        self._permitting = permitting
        self._errors: dict[str, Errors] = {}
        self._lock = Lock()

    def dtype(self, key: str) -> torch.dtype:
        """Return the type that a tensor is wanted in."""
        dtype = self._sink.dtype(key)
        return torch.promote_types(self._types[key], torch.float32) if dtype in HALF else dtype

    def write(self, key: str, start: int, tensor: Tensor) -> None:
        """Round entries from `start` on, (n,), and write them.

        Raises:
            R2MError: finite values that the type cannot hold, unless these are permitted.
        """
        dtype = self._sink.dtype(key)
        rounded = tensor.to(dtype)
        if dtype in HALF and tensor.dtype != dtype:
            errors = errors_of(tensor, rounded)
            if errors.to_infinity and self._permitting is not None:
                greatest = tensor[tensor.isfinite()].abs().max().item()
                raise R2MError(
                    f"{key}: {errors.to_infinity} values are beyond {dtype}, up to {greatest:.4g} in"
                    f" magnitude; bfloat16 and float32 reach to 3e38, and {self._permitting}"
                )
            with self._lock:
                self._errors[key] = self._errors.get(key, Errors()) | errors
        self._sink.write(key, start, rounded)

    def report(self) -> dict[str, Any]:
        """Return the errors of every type of half precision, and the tensors of the greatest ones."""
        return {
            str(dtype).removeprefix("torch."): _summary(
                {key: one for key, one in sorted(self._errors.items()) if self._sink.dtype(key) == dtype}
            )
            for dtype in HALF
            if any(self._sink.dtype(key) == dtype for key in self._errors)
        }

    def warnings(self) -> list[str]:
        """Return a warning for every tensor with values that became infinite."""
        return [
            f"{key}: {errors.to_infinity} finite values are beyond {self._sink.dtype(key)} and became"
            " infinite"
            for key, errors in sorted(self._errors.items())
            if errors.to_infinity
        ]


def errors_of(exact: Tensor, rounded: Tensor) -> Errors:
    """Return the errors of `rounded` (n,) against `exact` (n,), which is of a wider type."""
    total = Errors()
    for before, after in zip(exact.split(PART), rounded.split(PART), strict=True):
        if not len(before):
            continue
        widened = after.to(before.dtype)
        was_finite, is_finite = before.isfinite(), widened.isfinite()
        error = (widened - before).abs_().masked_fill_(~(was_finite & is_finite), 0.0)
        magnitude = before.abs().masked_fill_(~was_finite | (before == 0), 1.0)
        total |= Errors(
            error.max().item(),
            (error / magnitude).max().item(),
            int(((widened == 0) & (before != 0)).sum()),
            int((was_finite & ~is_finite).sum()),
        )
    return total


def _summary(errors: Mapping[str, Errors]) -> dict[str, Any]:
    worst, farthest = (
        max(errors, key=lambda key: getattr(errors[key], name)) for name in ("absolute", "relative")
    )
    return {
        "tensors": len(errors),
        "greatest_absolute": errors[worst].absolute,
        "greatest_absolute_in": worst,
        "greatest_relative": errors[farthest].relative,
        "greatest_relative_in": farthest,
        "to_zero": sum(one.to_zero for one in errors.values()),
        "to_infinity": sum(one.to_infinity for one in errors.values()),
    }
