"""Which images show the same person, by all that links them."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def linked(*links: Sequence[Hashable | None]) -> NDArray[np.int64]:
    """Return a group number for each of N images (N,): who shares a label in any of `links` is in one group.

    Each of `links` holds one label per image; None links nothing. Groups are numbered by their first member.
    """
    n = len(links[0])
    rows: list[int] = []
    nodes: list[int] = []
    number: dict[tuple[int, Hashable], int] = {}
    for kind, labels in enumerate(links):
        for row, label in enumerate(labels):
            if label is not None:
                rows.append(row)
                nodes.append(number.setdefault((kind, label), n + len(number)))
    size = n + len(number)
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, nodes)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return by_first(component[:n])


def by_first(labels: Sequence[Hashable] | NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the labels as numbers from 0 on, in the order of their first occurrence."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in list(labels)], dtype=np.int64)


def first_of_group(groups: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Return for each image the name that the first member of its group has."""
    first: dict[int, str] = {}
    return [first.setdefault(group, name) for group, name in zip(groups.tolist(), names, strict=True)]
