from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from r2m.data.identity import by_path, cluster, evenly, fair_share, nearest
from r2m.data.split import require_images, split_by_hash, split_by_identity
from r2m.errors import R2MError

SHARES = {"train": 0.62, "val": 0.14, "test": 0.24}


def test_cluster_joins_chains_and_numbers_by_first_member() -> None:
    angles = np.radians([0, 90, 20, 40, 200])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    people = cluster(embeddings, np.cos(np.radians(25)))
    assert people == ["pseudo-0001", "pseudo-0002", "pseudo-0001", "pseudo-0001", "pseudo-0003"]


def vectors(most: int) -> st.SearchStrategy[NDArray[np.float32]]:
    """Small whole numbers (n, 3): their products are exact in any order, and many are equal."""
    shapes = st.tuples(st.integers(0, most), st.just(3))
    return arrays(np.float32, shapes, elements=st.integers(-2, 2).map(float))


@given(vectors(24), st.integers(-3, 9), st.integers(1, 30))
def test_cluster_in_blocks_is_that_of_all_pairs(
    embeddings: NDArray[np.float32], threshold: int, block: int
) -> None:
    similar = (embeddings @ embeddings.T > threshold) | np.eye(len(embeddings), dtype=bool)
    for _ in range(5):  # paths of 2, 4, …, 32 steps
        similar = similar @ similar
    names: dict[int, str] = {}
    expected = [names.setdefault(int(row.argmax()), f"pseudo-{len(names) + 1:04d}") for row in similar]
    assert cluster(embeddings, threshold, block) == expected


@given(vectors(20), vectors(20), st.integers(-3, 9), st.integers(1, 25))
def test_nearest_in_blocks_is_that_of_all_pairs(
    embeddings: NDArray[np.float32], known: NDArray[np.float32], threshold: int, block: int
) -> None:
    cosine = np.concatenate([embeddings @ known.T, np.full((len(embeddings), 1), threshold)], axis=1)
    best = cosine.argmax(axis=1)
    above = cosine[np.arange(len(best)), best] > threshold
    assert nearest(embeddings, known, threshold, block).tolist() == np.where(above, best, -1).tolist()


def test_identity_by_path() -> None:
    assert by_path(Path("s1/2.pgm"), "folder") == "s1"
    assert by_path(Path("s1/2.pgm"), "file") == "s1/2"
    with pytest.raises(ValueError, match="sub-folder"):
        by_path(Path("2.pgm"), "folder")


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60), st.integers(1, 70))
def test_evenly_takes_the_limit_and_is_fair(people: list[str], limit: int) -> None:
    chosen = evenly(people, limit)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(limit, len(people))
    taken, there = Counter(people[i] for i in chosen), Counter(people)
    short = [person for person in there if taken[person] < there[person]]
    if short:
        assert max(taken.values()) - min(taken[person] for person in short) <= 1


def test_fair_share_gives_what_small_groups_leave() -> None:
    assert fair_share([1, 10, 10], 9) == [1, 4, 4]


@given(st.lists(st.integers(0, 300), min_size=100, max_size=400), st.integers(0, 5))
def test_split_keeps_identities_together_and_shares_close(numbers: list[int], seed: int) -> None:
    people = [f"p{n}" for n in numbers]
    split_of = split_by_identity(people, SHARES, seed)
    largest = max(Counter(people).values())
    counts = Counter(split_of[person] for person in people)
    for split, share in SHARES.items():
        assert abs(counts[split] - share * len(people)) <= 2 * largest


def test_split_does_not_depend_on_the_order_and_moves_few_for_one_more() -> None:
    people = [f"p{i}" for i in range(200)]
    split_of = split_by_identity(people, SHARES, 0)
    assert split_by_identity(people[::-1], SHARES, 0) == split_of
    more = split_by_identity([*people, "new"], SHARES, 0)
    assert sum(more[person] != split_of[person] for person in people) <= 3


def test_hash_split_follows_the_shares() -> None:
    counts = Counter(split_by_hash(f"p{i}", SHARES, 3) for i in range(2000))
    assert counts["train"] / 2000 == pytest.approx(0.62, abs=0.04)
    assert counts["val"] / 2000 == pytest.approx(0.14, abs=0.04)


def test_too_few_images_are_told() -> None:
    with pytest.raises(R2MError, match=r"a: 1 usable images in the split 'val', expected at least 2"):
        require_images(["train", "train", "val"], ["train", "val"], 2, "a")
