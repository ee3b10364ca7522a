"""Nearly equal images: perceptual hashes that differ in few bits, found without comparing all pairs."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Of 64 bits. A copy that was compressed or resized again differs in 0 to 2; other faces in about 20.
MOST_BITS = 3
BLOCKS = 6
# Images whose hashes share half of their bits are compared with so many that follow in the order of the rows.
MOST_COMPARED = 1024

Rows = NDArray[np.int64]


def near_pairs(hashes: NDArray[np.uint64], groups: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield pairs of rows (i, j) of different groups whose hashes (N,) differ in at most `MOST_BITS` bits.

    Of `BLOCKS` blocks of bits, such hashes agree in all but `MOST_BITS` at least; so every choice of that
    many blocks is sorted by, and neighbours are compared (Manku, Jain and Das Sarma, "Detecting
    near-duplicates for web crawling", WWW 2007). A pair may come more than once. Where more than
    `MOST_COMPARED` hashes agree in half of their bits, pairs further apart in the order of rows are left out.
    """
    for mask in _masks():
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        places = np.arange(len(keys))
        for lag in range(1, MOST_COMPARED + 1):
            places = places[: np.searchsorted(places, len(keys) - lag)]
            places = places[keys[places] == keys[places + lag]]
            if not len(places):
                break
            left, right = order[places], order[places + lag]
            is_near = np.bitwise_count(hashes[left] ^ hashes[right]) <= MOST_BITS
            is_near &= groups[left] != groups[right]
            yield left[is_near], right[is_near]


def partners(frame: pd.DataFrame) -> dict[str, Rows]:
    """Return for each row (N,) another row that is nearly equal, −1 where there is none, by what differs.

    The keys are `split`, `label` (in one split), and `neither`. The columns are those of
    `r2m.validate.rows.examine`. Images of one video or of one person in one domain are left out: neighbouring
    frames, and a forgery and its source, are alike anyway. So are those of the same content.
    """
    images = np.flatnonzero((frame["media"] == "image").to_numpy() & (frame["digest"] != "").to_numpy())
    shown = pd.DataFrame(
        {
            "phash": frame["phash"].to_numpy()[images],
            "group": frame["group"].to_numpy()[images],
            "split": frame["split"].cat.codes.to_numpy()[images],
            "label": frame["label"].to_numpy()[images],
            "copy": frame["copy"].to_numpy()[images],
        }
    )
    # Frames of a video with the same hash stand for one another.
    element: Rows = (
        shown.groupby(["phash", "group", "split"], sort=False).ngroup().to_numpy().astype(np.int64)
    )
    first = np.unique(element, return_index=True)[1].astype(np.int64)
    hashes, groups, splits, labels, copies = (
        shown[name].to_numpy()[first] for name in ("phash", "group", "split", "label", "copy")
    )
    people = frame[["person", "person2"]].to_numpy()[images[first]]
    result = {name: np.full(len(first), -1, dtype=np.int64) for name in ("split", "label", "neither")}
    for left, right in near_pairs(hashes, groups):
        is_new = (copies[left] != copies[right]) & ~_share(people[left], people[right])
        left, right = left[is_new], right[is_new]
        other_split = splits[left] != splits[right]
        other_label = ~other_split & (labels[left] != labels[right])
        for name, chosen in (
            ("split", other_split),
            ("label", other_label),
            ("neither", ~other_split & ~other_label),
        ):
            _pair(result[name], left[chosen], right[chosen])
    return {name: _of_rows(found, element, first, images, len(frame)) for name, found in result.items()}


def _masks() -> Iterator[np.uint64]:
    """Yield a mask of 64 bits for every choice of blocks in which near hashes may agree."""
    bounds = np.linspace(0, 64, BLOCKS + 1).astype(int)
    blocks = [(1 << int(high)) - (1 << int(low)) for low, high in pairwise(bounds)]
    for chosen in combinations(blocks, BLOCKS - MOST_BITS):
        yield np.uint64(sum(chosen))


def _share(people: Rows, others: Rows) -> NDArray[np.bool_]:
    """Return whether people (N, 2) and others (N, 2) have one in common; −1 is nobody."""
    equal = (people[:, :, None] == others[:, None, :]) & (people[:, :, None] >= 0)
    return equal.any(axis=(1, 2))


def _pair(partner: Rows, left: Rows, right: Rows) -> None:
    """Set the partners of rows that have none yet."""
    for rows, others in ((left, right), (right, left)):
        is_alone = partner[rows] < 0
        partner[rows[is_alone]] = others[is_alone]


def _of_rows(found: Rows, element: Rows, first: Rows, images: Rows, count: int) -> Rows:
    """Return partners of `count` rows from those of elements."""
    result = np.full(count, -1, dtype=np.int64)
    other = found[element]
    result[images] = np.where(other >= 0, images[first[other]], -1)
    return result
