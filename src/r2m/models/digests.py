"""Digests of weights by content: the same for the same tensors, whatever file, format or shards hold them."""

import hashlib
import json
from collections.abc import Iterable, Mapping

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


def weights_digest(weights: WeightsFile, digests: Mapping[str, str]) -> str:
    """Return the `content_digest` of open weights, the same whatever known prefix the file's names have."""
    names = weights.digest_names
    entries = {names[name]: entry for name, entry in weights.entries.items()}
    return content_digest(entries, {names[name]: one for name, one in digests.items()})


def sha256_of(weights: WeightsFile, names: Iterable[str] | None = None) -> str:
    """Return what `checkpoint.sha256` gives of all tensors, or of those in `names`, read in small pieces.

    Known prefixes that all of the file's names have do not count.

    Raises:
        KeyError: no tensor of one of `names`.
        R2MError: the file cannot be read, or was truncated meanwhile.
    """
    digest = hashlib.sha256()
    buffer = torch.empty(PIECE_BYTES, dtype=torch.uint8)
    called = weights.digest_names
    for name in sorted(weights.entries if names is None else set(names), key=called.__getitem__):
        entry = weights.entries[name]
        digest.update(description(called[name], entry))
        step = PIECE_BYTES // entry.dtype.itemsize
        for start in range(0, entry.numel, step):
            piece = weights.read(name, start, min(start + step, entry.numel), buffer)
            digest.update(raw_bytes(piece))
    return digest.hexdigest()


def description(name: str, entry: Entry, *more: str) -> bytes:
    """Return name, type and shape as JSON, which no other name, type and shape give."""
    return json.dumps([name, DTYPES[entry.dtype], list(entry.shape), *more]).encode()
