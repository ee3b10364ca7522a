"""Who is on which photograph: identities, what links photographs, and an even choice over identities."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from r2m.data.naming import person_of_folder

BLOCK = 1024


def by_path(path: Path, identity: str) -> str:
    """Return the identity that a relative path names: the person of its `folder`, or else the path itself.

    Raises:
        ValueError: identity is `folder` and the file is in none.
    """
    if identity != "folder":
        return path.with_suffix("").as_posix()
    person = person_of_folder(path.parent)
    if not person:
        raise ValueError("not in a sub-folder that would name its identity")
    return person


def cluster(embeddings: NDArray[np.float32], threshold: float, block: int = BLOCK) -> list[str]:
    """Return pseudo-identities of unit `embeddings` (N, D): connected components of cosine > `threshold`.

    They are numbered by their first member, so the names depend on the order of the rows. Cosines are
    computed in squares of `block` rows, so that memory grows with N.
    """
    n = len(embeddings)
    first = np.arange(n)  # of each row, the first known member of its component
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n))
        links = [np.stack([np.arange(n), first])]
        for across in range(start, n, block):
            columns = np.arange(across, min(across + block, n))
            similar = embeddings[rows] @ embeddings[columns].T > threshold
            similar &= first[rows, None] != first[columns]
            if similar.any():
                links.append(_links(similar, rows, columns))
        if len(links) > 1:
            start_nodes, stop_nodes = np.concatenate(links, axis=1)
            first = _first_members(start_nodes, stop_nodes, n)
    return [pseudo(number) for number in by_first(first.tolist()).tolist()]


def pseudo(number: int) -> str:
    """Return the name of the pseudo-identity that is the `number`-th from 0."""
    return f"pseudo-{number + 1:04d}"


def nearest(
    embeddings: NDArray[np.float32], references: NDArray[np.float32], threshold: float, block: int = BLOCK
) -> NDArray[np.int64]:
    """Return for each unit embedding (N, D) the index of the nearest of `references` (M, D) by cosine, or −1.

    It is −1 where no cosine exceeds `threshold`; of equal cosines the first counts. Cosines are computed in
    squares of `block` rows, so that memory grows with N.
    """
    best = np.full(len(embeddings), threshold, dtype=np.float32)
    index = np.full(len(embeddings), -1, dtype=np.int64)
    for start in range(0, len(embeddings), block):
        rows = slice(start, start + block)
        for first in range(0, len(references), block):
            cosine = embeddings[rows] @ references[first : first + block].T
            position = cosine.argmax(axis=1)
            value = np.take_along_axis(cosine, position[:, None], axis=1)[:, 0]
            closer = value > best[rows]
            best[rows] = np.where(closer, value, best[rows])
            index[rows] = np.where(closer, first + position, index[rows])
    return index


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
            number = min(step, sizes[i] - share[i], total)
            share[i] += number
            total -= number
    return share


def linked(*links: Sequence[Hashable | None]) -> NDArray[np.int64]:
    """Return a group number for each of N images (N,): who shares a label in any of `links` is in one group.

    Each of `links` holds one label per image; None links nothing. Groups are numbered by their first member.
    """
    n = len(links[0])
    rows: list[int] = []
    nodes: list[int] = []
    number: dict[tuple[int, Hashable], int] = {}
    for link, labels in enumerate(links):
        for row, label in enumerate(labels):
            if label is not None:
                rows.append(row)
                nodes.append(number.setdefault((link, label), n + len(number)))
    members = _first_members(np.array(rows, np.int64), np.array(nodes, np.int64), n + len(number))
    return by_first(members[:n].tolist())


def by_first(labels: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return the labels as numbers from 0 on, in the order of their first occurrence."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in labels], dtype=np.int64)


def first_of_group(groups: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Return for each image the name that the first member of its group has."""
    first: dict[int, str] = {}
    return [first.setdefault(group, name) for group, name in zip(groups.tolist(), names, strict=True)]


def _spaced(n: int, count: int) -> list[int]:
    return [int((i + 0.5) * n / count) for i in range(count)]


def _links(
    similar: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return R + C pairs (2, R + C) that join the same `rows` and `columns` as `similar` (R, C) does."""
    row, column = np.nonzero(similar)
    nodes = np.concatenate([rows, columns])
    return np.stack([nodes, nodes[_first_members(row, column + len(rows), len(nodes))]])


def _first_members(start: NDArray[np.int64], stop: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return, for each of n nodes, the first node of its connected component; edges lead `start` → `stop`."""
    graph = coo_array((np.ones(len(start), dtype=bool), (start, stop)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, member = np.unique(component, return_index=True)
    return member[component]
