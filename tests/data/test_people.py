from hypothesis import given
from hypothesis import strategies as st

from r2m.data.identity import first_of_group, linked

LABELS = st.lists(
    st.tuples(st.none() | st.integers(0, 5), st.none() | st.sampled_from("abcd")), min_size=1, max_size=30
)


@given(LABELS)
def test_images_that_share_a_label_are_together_and_no_others(labels: list[tuple]) -> None:
    groups = linked([number for number, _ in labels], [letter for _, letter in labels]).tolist()
    reached = [{i} for i in range(len(labels))]
    for _ in labels:
        for i, mine in enumerate(labels):
            for j, other in enumerate(labels):
                if any(a is not None and a == b for a, b in zip(mine, other, strict=True)):
                    union = reached[i] | reached[j]
                    reached[i], reached[j] = union, union
    for i, together in enumerate(reached):
        assert {j for j, group in enumerate(groups) if group == groups[i]} == together


@given(LABELS)
def test_groups_are_numbered_by_their_first_member(labels: list[tuple]) -> None:
    groups = linked([number for number, _ in labels]).tolist()
    firsts = list(dict.fromkeys(groups))
    assert firsts == list(range(len(firsts)))


def test_equal_labels_of_different_links_are_different() -> None:
    assert linked(["a", None], [None, "a"]).tolist() == [0, 1]


def test_name_of_the_first_member() -> None:
    assert first_of_group(linked(["x", "y", "x"]), ["p", "q", "r"]) == ["p", "q", "p"]
