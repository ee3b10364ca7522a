"""Splits by identity: no identity stands in two of them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from r2m.errors import R2MError
from r2m.seeding import derive


def split_by_identity(identities: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return identity → split, near the asked `shares` of the images and without an identity in two splits.

    Identities stand in the order of a seeded hash of their name and fill the splits in turn: an identity
    goes where the middle of its images falls. So one more identity moves only the few that stand at a
    border.
    """
    counts = Counter(identities)
    bounds = np.cumsum([shares[split] for split in shares]) * len(identities)
    names, before, assigned = list(shares), 0, {}
    for identity in sorted(counts, key=lambda name: derive(seed, "split", name)):
        middle = before + counts[identity] / 2
        assigned[identity] = names[min(int(np.searchsorted(bounds, middle)), len(names) - 1)]
        before += counts[identity]
    return assigned


def split_by_hash(identity: str, shares: Mapping[str, float], seed: int) -> str:
    """Return the split of one identity alone, by where its seeded hash falls in the `shares`."""
    position = derive(seed, "split", identity) / 2**63
    index = int(np.searchsorted(np.cumsum(list(shares.values())), position))
    return list(shares)[min(index, len(shares) - 1)]


def require_images(splits: Sequence[str], expected: Collection[str], minimum: int, name: str) -> None:
    """Raise R2MError if one of the `expected` splits of the set `name` has fewer than `minimum` images."""
    counts = Counter(splits)
    for split in expected:
        if counts[split] < minimum:
            raise R2MError(
                f"{name}: {counts[split]} usable images in the split {split!r}, expected at least {minimum} "
                "(faces.min_images); skipped.csv, or the log above, says what was left out"
            )
