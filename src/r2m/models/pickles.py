"""Files of `torch.save`: tensors alone are unpickled, and nothing in a file is run."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.models.entries import DTYPE_OF, DTYPES, Entry
from r2m.models.state_dicts import unwrapped

_REFUSED = re.compile(r"(?:GLOBAL|type|class) ([\w.]+)")


@dataclass(frozen=True)
class Loaded:
    """A tensor of an unpickled state dict, of any strides."""

    entry: Entry
    path: Path
    tensor: Tensor

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def fill(self, view: Tensor, start: int) -> None:
        """Copy the flat elements from `start` on into `view`."""
        stop = start + len(view)
        if self.tensor.is_contiguous():
            view.copy_(self.tensor.view(-1)[start:stop])
        else:  # take() follows the strides, where reshape(-1) would copy the whole tensor for every piece
            view.copy_(self.tensor.take(torch.arange(start, stop)))


def open_pickle(path: Path, notes: list[str], mapped: bool) -> Mapping[str, Loaded]:
    """Unpickle the tensors of a state dict, memory-mapped (`mapped`) where the format allows it.

    Raises:
        R2MError: corrupt, pickled objects other than tensors, or no state dict; `unwrapped` tells the rules.
    """
    try:
        content = _load(path, mapped)
    except pickle.UnpicklingError as error:
        refused = _REFUSED.search(str(error))
        if refused is None:
            raise R2MError(
                f"{path}: holds pickled Python objects or is corrupt; expected a state dict of plain tensors"
                " (nothing in the file was run)"
            ) from error
        raise R2MError(
            f"{path}: holds pickled Python objects ({refused[1]} first); expected a state dict of plain"
            " tensors (nothing in the file was run). Where you trust it, save its weights alone:"
            " torch.save(model.state_dict(), NEW)"
        ) from error
    except Exception as error:  # an unpickler meets damage with errors of nearly every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in reason:  # torch's advice to run what the file holds is not passed on
            reason = type(error).__name__
        raise R2MError(f"{path}: corrupt, or no checkpoint of PyTorch ({reason})") from error
    try:
        tensors = unwrapped(content, path, notes)
    except RecursionError as error:
        raise R2MError(f"{path}: corrupt: a mapping that holds itself") from error
    return {
        name: Loaded(_entry(name, tensor, path), path, tensor.detach()) for name, tensor in tensors.items()
    }


def _load(path: Path, mapped: bool) -> Any:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    with path.open("rb") as file:  # by such a name torch would tell the format
        return torch.load(file, map_location="cpu", weights_only=True)


def _entry(name: str, tensor: Tensor, path: Path) -> Entry:
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
        description = f"{tensor.dtype}, {tensor.layout}, {tensor.device.type}".replace("torch.", "")
        raise R2MError(
            f"{path}: tensor {name!r} is {description}; expected strided, of {', '.join(DTYPE_OF)}"
        )
    return Entry(tensor.dtype, tuple(tensor.shape))
