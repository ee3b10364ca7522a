"""Checkpoints: safetensors files with provenance metadata, and the weights files that users bring."""

import hashlib
import json
import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from r2m import __version__
from r2m.errors import R2MError
from r2m.files import atomic_path

logger = logging.getLogger(__name__)

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
WRAPPERS = ("state_dict", "model")
PREFIXES = ("module.", "backbone.", "model.")


def save(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors` and `metadata` atomically; the same content always gives the same bytes.

    Metadata values that are not text are stored as JSON; `r2m_version` is added. The file is written here,
    since the safetensors library puts metadata in an arbitrary order.
    """
    cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    # Widest elements first: every tensor then begins at a multiple of its element size.
    order = sorted(cpu, key=lambda name: (-cpu[name].element_size(), name))
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in {**metadata, "r2m_version": __version__}.items()
    }
    header: dict[str, Any] = {"__metadata__": dict(sorted(texts.items()))}
    offset = 0
    for name in order:
        size = cpu[name].numel() * cpu[name].element_size()
        header[name] = {
            "dtype": DTYPES[cpu[name].dtype],
            "shape": list(cpu[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(_bytes(cpu[name]))


def load(path: str | Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors, sorted by name, and the metadata (JSON values are left as text).

    Raises:
        R2MError: missing or not a safetensors file.
    """
    with _open(path, device) as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return tensors, dict(file.metadata() or {})


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata only; raises R2MError like `load`."""
    with _open(path, "cpu") as file:
        return dict(file.metadata() or {})


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of names, dtypes, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(json.dumps([name, DTYPES[tensor.dtype], list(tensor.shape)]).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a user's .safetensors, .pt, .pth or .bin file, on the CPU.

    Wrappers (`state_dict`, `model`) are opened and prefixes that all names share (`module.`, `backbone.`,
    `model.`) are taken off; both are logged.

    Raises:
        R2MError: missing, corrupt, holds pickled code, or holds no tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _without_prefixes(load(path)[0], path)
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise R2MError(f"{path}: expected a file .safetensors, .pt, .pth or .bin")
    if not path.is_file():
        raise R2MError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise R2MError(
            f"{path}: holds pickled Python objects or is corrupt; expected a state dict of plain tensors"
            " (nothing in the file was run)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise R2MError(f"{path}: corrupt weights file ({error})") from error
    return _without_prefixes(_unwrapped(content, path), path)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict inside the wrappers that training scripts put around it."""
    while isinstance(content, Mapping):
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        logger.info("%s: weights taken from its key %r", path, wrapper)
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise R2MError(f"{path}: expected a mapping of names to tensors, got {type(content).__name__}")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise R2MError(f"{path}: holds no tensors; its keys are {sorted(map(str, content))[:8]}")
    return dict(sorted(tensors.items()))


def _without_prefixes(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take off the known prefixes that every backbone tensor has (a head may stand beside it)."""
    while True:
        prefix = next((one for one in PREFIXES if _is_shared(one, tensors)), None)
        if prefix is None:
            return tensors
        logger.info("%s: prefix %r removed from the names of its tensors", path, prefix)
        tensors = dict(sorted((name.removeprefix(prefix), tensor) for name, tensor in tensors.items()))


def _is_shared(prefix: str, tensors: Mapping[str, Tensor]) -> bool:
    others = [name for name in tensors if not name.startswith(prefix)]
    return len(others) < len(tensors) and all(name.startswith("head.") for name in others)


def _open(path: str | Path, device: str) -> Any:
    if not Path(path).is_file():
        raise R2MError(f"{path}: no such file")
    try:
        return safe_open(path, framework="pt", device=device)
    except (SafetensorError, OSError) as error:
        raise R2MError(f"{path}: corrupt or not a safetensors file ({error})") from error


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
