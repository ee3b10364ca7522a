"""Checkpoints: safetensors files with provenance metadata, and the weights files that users bring."""

import logging
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from r2m.errors import R2MError
from r2m.models.digests import content_digest, digest_of
from r2m.models.entries import Entry
from r2m.models.names import without_prefixes
from r2m.models.weights import open_weights
from r2m.models.writer import WeightsWriter

logger = logging.getLogger(__name__)


def save(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `tensors` and `metadata` atomically; the same content always gives the same bytes.

    Metadata values that are not text are stored as JSON; `format: pt`, which loaders of other libraries ask
    for, and `r2m_version` are added.

    Raises:
        KeyError: a dtype that the format has not.
        ValueError: another `format` among the metadata.
        R2MError: a name that the format cannot hold, the disk is full, or the folder cannot be written.
    """
    specs = {name: Entry(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with WeightsWriter(path, specs, metadata) as writer:
        for name, tensor in tensors.items():
            writer.write(name, 0, tensor)
        writer.finish()


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


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the digest that tells these tensors from others, whatever file they came from.

    It is `r2m.models.digests.weights_digest` of a file that holds them: of names, types, shapes and values.
    """
    stored = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    entries = {name: Entry(tensor.dtype, tuple(tensor.shape)) for name, tensor in stored.items()}
    return content_digest(entries, {name: digest_of(tensor) for name, tensor in stored.items()})


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read all tensors of a user's weights, sorted by name, on the CPU; `open_weights` tells the rules.

    Prefixes that all names but the classifier's have (`module.`, `backbone.`, `model.`) are taken off, which
    is logged.

    Raises:
        R2MError: missing, corrupt, holds pickled code, tensors of an unknown type, or no tensors.
    """
    with open_weights(path) as weights:
        try:
            names, removed = without_prefixes(weights.entries)
        except ValueError as error:
            raise R2MError(f"{weights.path}: {error}") from error
        for prefix in removed:
            logger.info("%s: prefix %r removed from the names of its tensors", weights.path, prefix)
        return {short: weights.tensor(name) for name, short in sorted(names.items(), key=itemgetter(1))}


def _open(path: str | Path, device: str) -> Any:
    if not Path(path).is_file():
        raise R2MError(f"{path}: no such file")
    try:
        return safe_open(path, framework="pt", device=device)
    except (SafetensorError, OSError) as error:
        raise R2MError(f"{path}: corrupt or not a safetensors file ({error})") from error
