"""Digests of weights by content: the same for the same tensors, whatever file, format or shards hold them."""

import json
from collections.abc import Mapping

import torch
from blake3 import blake3
from torch import Tensor

from r2m.models.entries import DTYPES, Entry, raw_bytes
from r2m.models.weights import WeightsFile

# A multiple of every element size.
PIECE_BYTES = 4 << 20


class TensorDigest:
    """BLAKE3 of one tensor's bytes, fed in the order of its elements; one thread at a time."""

    def __init__(self) -> None:
        self._hash = blake3()

    def update(self, piece: Tensor) -> None:
        """Add the next elements, a contiguous tensor on the CPU."""
        self._hash.update(raw_bytes(piece))

    def hexdigest(self) -> str:
        """Return the digest of what was added so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()


def digest_of(tensor: Tensor) -> str:
    """Return the `TensorDigest` of a whole contiguous tensor on the CPU."""
    digest = TensorDigest()
    digest.update(tensor)
    return digest.hexdigest()


def content_digest(entries: Mapping[str, Entry], digests: Mapping[str, str]) -> str:
    """Return `blake3:` and the digest of names, types, shapes and `TensorDigest`s, sorted by name.

    Raises:
        ValueError: `digests` are of other tensors than `entries`.
    """
    if entries.keys() != digests.keys():
        raise ValueError(f"digests of {sorted(digests)} for the tensors {sorted(entries)}")
    total = blake3()
    for name in sorted(entries):
        total.update(description(name, entries[name], digests[name]) + b"\n")
    return f"blake3:{total.hexdigest()}"


def weights_digest(weights: WeightsFile, known: Mapping[str, str] | None = None) -> str:
    """Return the `content_digest` of open weights, the same whatever known prefix the file's names have.

    Tensors whose `TensorDigest` is not among those `known` are read, in small pieces.

    Raises:
        R2MError: the file cannot be read, or was truncated meanwhile.
    """
    names = weights.digest_names
    digests = {name: (known or {}).get(name) or _read_digest(weights, name) for name in weights.entries}
    entries = {names[name]: entry for name, entry in weights.entries.items()}
    return content_digest(entries, {names[name]: digest for name, digest in digests.items()})


def _read_digest(weights: WeightsFile, name: str) -> str:
    digest, entry = TensorDigest(), weights.entries[name]
    buffer = torch.empty(min(PIECE_BYTES, entry.nbytes), dtype=torch.uint8)
    step = PIECE_BYTES // entry.dtype.itemsize
    for start in range(0, entry.numel, step):
        digest.update(weights.read(name, start, min(start + step, entry.numel), buffer))
    return digest.hexdigest()


def description(name: str, entry: Entry, *more: str) -> bytes:
    """Return name, type and shape as JSON, which no other name, type and shape give."""
    return json.dumps([name, DTYPES[entry.dtype], list(entry.shape), *more]).encode()
