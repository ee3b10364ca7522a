"""Where and how precisely a model runs: fp32, or bf16 autocast where the hardware has it."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from r2m.errors import R2MError


def resolve_device(name: str, source: str = "params.yaml: device") -> torch.device:
    """Return the device called `name`; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        R2MError: the device is not there; the message begins with `source`, where the name was given.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_present in available.items() if is_present)
    if not available[name]:
        present = [device for device, is_present in available.items() if is_present]
        raise R2MError(f"{source}: {name!r} is not available here; expected auto or one of {present}")
    return torch.device(name)


def make_deterministic(device: torch.device) -> None:
    """Let CUDA compute the same bits each time; an operation that cannot raises RuntimeError from then on."""
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    torch.use_deterministic_algorithms(True)
    # Nothing here reads such memory, and filling it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the autocast context of `precision` (auto | fp32 | bf16) on `device`.

    `auto` is bf16 on CUDA and on CPUs with bf16 instructions, elsewhere fp32. Weights stay fp32.
    """
    native = device.type == "cuda" or (
        device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    )
    enabled = precision == "bf16" or (precision == "auto" and native)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def outputs(
    function: Callable[[Tensor], Tensor], batches: Iterable[Tensor], device: torch.device, precision: str
) -> Iterator[Tensor]:
    """Yield `function` of every batch, computed on `device` without gradients, on the CPU."""
    for batch in batches:
        with torch.inference_mode(), autocast(device, precision):
            result = function(batch.to(device))
        yield result.cpu()
