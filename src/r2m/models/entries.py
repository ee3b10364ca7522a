"""Stored tensors: their types and shapes, and where their elements are read from."""

import math
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPE_OF = {code: dtype for dtype, code in DTYPES.items()}


class Entry(NamedTuple):
    """Type and shape of a stored tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.itemsize


class Source(Protocol):
    """A tensor that can be read in pieces, by several threads."""

    @property
    def entry(self) -> Entry:
        """Type and shape."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are read."""

    def fill(self, view: Tensor, start: int) -> None:
        """Copy the flat elements from `start` on into `view` (n,), of the entry's type.

        Raises:
            R2MError: the file cannot be read, or was truncated meanwhile.
        """


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
