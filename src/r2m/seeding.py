"""Random streams named by what they are for, so that no stream depends on how often another was used."""

import hashlib

import numpy as np


def derive(seed: int, *names: str) -> int:
    """Return a 63-bit seed that depends on `seed` and `names` only."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def rng(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of the stream called `names` under `seed`."""
    return np.random.default_rng(derive(seed, *names))
