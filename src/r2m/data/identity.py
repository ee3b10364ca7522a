"""Who is on which photograph: identities, and an even choice of photographs over them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from r2m.data.naming import person_of_folder

CHUNK = 2048


def by_path(path: Path, kind: str) -> str:
    """Return the identity that a relative path names: the person of its `folder`, or else the path itself.

    Raises:
        ValueError: identity is `folder` and the file is in none.
    """
    if kind != "folder":
        return path.with_suffix("").as_posix()
    person = person_of_folder(path.parent)
    if not person:
        raise ValueError("not in a sub-folder that would name its identity")
    return person


def cluster(embeddings: NDArray[np.float32], threshold: float) -> list[str]:
    """Return pseudo-identities of unit `embeddings` (N, D): connected components of cosine > `threshold`.

    They are numbered by their first member, so the names depend on the order of the rows.
    """
    n = len(embeddings)
    pairs: list[NDArray[np.int64]] = [np.empty((2, 0), dtype=np.int64)]
    for start in range(0, n, CHUNK):
        rows, columns = np.nonzero(embeddings[start : start + CHUNK] @ embeddings.T > threshold)
        pairs.append(np.stack([rows + start, columns]))
    rows, columns = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    number: dict[int, int] = {}
    return [pseudo(number.setdefault(int(c), len(number))) for c in component]


def pseudo(number: int) -> str:
    """Return the name of the pseudo-identity that is the `number`-th from 0."""
    return f"pseudo-{number + 1:04d}"


def evenly(identities: Sequence[str], limit: int | None) -> list[int]:
    """Return the indices of about `limit` items, as many of each identity as can be, in order.

    Identities take turns until `limit` is reached; within an identity the items are evenly spaced. With fewer
    turns than identities, the identities are evenly spaced.
    """
    if limit is None or limit >= len(identities):
        return list(range(len(identities)))
    members = defaultdict(list)
    for index, identity in enumerate(identities):
        members[identity].append(index)
    groups = [members[identity] for identity in sorted(members)]
    if limit <= len(groups):
        return sorted(groups[i][0] for i in _spaced(len(groups), limit))
    share, chosen = fair_share([len(group) for group in groups], limit), []
    for group, count in zip(groups, share, strict=True):
        chosen += [group[i] for i in _spaced(len(group), count)]
    return sorted(chosen)


def fair_share(sizes: Sequence[int], total: int) -> list[int]:
    """Return how many of each group to take: equal numbers, but all of a group that is too small."""
    share = [0] * len(sizes)
    while total > 0 and (open_ := [i for i, size in enumerate(sizes) if share[i] < size]):
        step = max(1, total // len(open_))
        for i in open_:
            taken = min(step, sizes[i] - share[i], total)
            share[i] += taken
            total -= taken
    return share


def _spaced(n: int, count: int) -> list[int]:
    return [int((i + 0.5) * n / count) for i in range(count)]
