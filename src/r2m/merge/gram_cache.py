"""The file that keeps inner products of task vectors from one merge to the next."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge.blocks import Blocks
from r2m.merge.gram import GramCache, grams
from r2m.models import checkpoint
from r2m.models.writer import WeightsWriter


def through_cache(
    path: Path, blocks: Blocks, identities: Sequence[str]
) -> tuple[dict[str, Tensor], GramCache | None]:
    """Return the Grams (K, K) of `blocks`, computing what the file `path` lacks, and what it should hold.

    That is None where nothing is new. `identities` tell contents apart: the base's, then one for each of
    `blocks.names`.

    Raises:
        R2MError: the file exists and is no such cache.
    """
    base, *specialists = identities
    cache = load(path) if path.exists() else GramCache(base, (), {})
    known = cache.known(base, specialists)
    result = grams(blocks, known)
    is_new = any(key not in known or known[key].isnan().any() for key in result)
    return result, cache.updated(base, specialists, result) if is_new else None


def load(path: Path) -> GramCache:
    """Read a cache; raises R2MError where it is missing, corrupt, or another kind of file."""
    tensors, metadata = checkpoint.load(path)
    if metadata.get("kind") != "gram cache":
        raise R2MError(f"{path}: expected a cache of inner products, written by `r2m merge`")
    specialists = tuple(json.loads(metadata["specialists"]))
    size = len(specialists)
    for key, gram in tensors.items():
        if gram.shape != (size, size) or gram.dtype != torch.float64:
            raise R2MError(f"{path}: {key} is {tuple(gram.shape)}, expected ({size}, {size}) in float64")
    return GramCache(metadata["base"], specialists, tensors)


@contextmanager
def written(path: Path, cache: GramCache) -> Iterator[Path]:
    """Write a cache that is to become `path`, and yield its temporary path.

    Raises:
        R2MError: the disk is full.
    """
    metadata = {"kind": "gram cache", "base": cache.base, "specialists": list(cache.specialists)}
    specs = {key: (gram.dtype, tuple(gram.shape)) for key, gram in cache.grams.items()}
    with WeightsWriter(path, specs, metadata) as writer:
        for key, gram in cache.grams.items():
            writer.write(key, 0, gram)
        yield writer.complete()
