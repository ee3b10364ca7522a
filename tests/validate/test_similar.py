import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.validate import similar
from r2m.validate.similar import MOST_BITS, near_pairs

BITS = st.sets(st.integers(0, 63), max_size=6)


def found(hashes, groups):
    pairs = set()
    for left, right in near_pairs(np.array(hashes, dtype=np.uint64), np.array(groups)):
        pairs |= {tuple(sorted(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)}
    return pairs


def by_all_pairs(hashes, groups):
    return {
        (i, j)
        for j in range(len(hashes))
        for i in range(j)
        if (hashes[i] ^ hashes[j]).bit_count() <= MOST_BITS and groups[i] != groups[j]
    }


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(BITS, st.integers(0, 3)), min_size=2, max_size=12),
)
def test_near_pairs_are_those_of_all_pairs(centre, changes):
    hashes = [centre ^ sum(1 << bit for bit in bits) for bits, _ in changes]
    groups = [group for _, group in changes]
    assert found(hashes, groups) == by_all_pairs(hashes, groups)


def test_far_hashes_are_no_pair():
    hashes = np.random.default_rng(0).integers(0, 2**63, 300).tolist()
    assert found(hashes, list(range(300))) == set()


def test_no_images_at_all():
    assert found([], []) == set()


def test_thousands_of_equal_images_take_little(monkeypatch):
    """Each still finds a partner, though only some pairs are compared."""
    monkeypatch.setattr(similar, "MOST_COMPARED", 2)
    pairs = found([7] * 2000, list(range(2000)))
    assert {row for pair in pairs for row in pair} == set(range(2000))
    assert len(pairs) < 4000
