from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.index import methods
from r2m.index.clips import NO_TEST, NOTHING, TEST, Clip, Skipped, people, real
from r2m.index.splits import Draw, Placed, place

SHARES = {"train": 0.66, "val": 0.15, "test": 0.19}
DRAW = Draw(SHARES, 0)


def clip(video, method="simswap", said=NOTHING, domain="ff"):
    if method == "real":
        traits = real(domain, "DF40", domain, said)
    else:
        traits = real(domain, "DF40", domain, said).forged(methods.get(method))
    folder = f"/{method}/{video}"
    return Clip(traits, folder, folder, {"0.png": 1}, video, people(traits, video), said=said)


def placed(clips, listed=None, earlier=None, draw=DRAW):
    """Return (method, video) → split, and the videos that are left out."""
    results = list(place(clips, listed or {}, earlier or {}, draw))
    splits = {
        (item.clip.traits.method, item.clip.video): item.split for item in results if isinstance(item, Placed)
    }
    return splits, [item for item in results if isinstance(item, Skipped)]


def people_on_two_sides(clips, splits):
    sides = {}
    for one in clips:
        split = splits.get((one.traits.method, one.video))
        if split:
            for person in one.persons:
                sides.setdefault(person, set()).add(split)
    return {person for person, person_splits in sides.items() if len(person_splits) > 1}


PAIRS = [f"{first:03}_{second:03}" for k in range(0, 200, 2) for first, second in ((k, k + 1), (k + 1, k))]


def test_pairs_stay_together_and_nobody_is_on_two_sides():
    clips = [clip(pair) for pair in PAIRS] + [clip(f"{k:03}", "real") for k in range(200)]
    splits, left_out = placed(clips)
    assert not left_out
    assert not people_on_two_sides(clips, splits)
    counts = Counter(splits.values())
    assert counts["train"] / len(clips) == pytest.approx(0.66, abs=0.12)
    assert counts["val"] > 0
    assert counts["test"] > 0


def test_a_dense_web_of_pairs_is_split_by_people():
    clips = [clip(f"id{a}_id{b}_0000", domain="cdf") for a in range(30) for b in range(30) if a != b]
    splits, left_out = placed(clips)
    assert not people_on_two_sides(clips, splits)
    assert 0.2 < len(left_out) / len(clips) < 0.7
    assert {"train", "test"} <= set(splits.values())
    assert {item.reason for item in left_out} == {"its two people are in different splits"}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60), st.integers(0, 3))
def test_nobody_is_ever_on_two_sides(pairs, seed):
    clips = [clip(f"{a:03}_{b:03}", "mraa") for a, b in dict.fromkeys(pairs) if a != b]
    clips += [clip(f"{k:03}", "real") for k in range(30)]
    splits, _ = placed(clips, draw=Draw(SHARES, seed))
    assert not people_on_two_sides(clips, splits)


def test_a_method_that_is_added_moves_nobody():
    before = [clip(pair, method) for pair in PAIRS for method in ("simswap", "mraa")]
    others = [f"{k:03}_{(k * 7 + 3) % 200:03}" for k in range(200) if k != (k * 7 + 3) % 200]
    after = [
        *before,
        *(clip(pair, "blendface") for pair in others),
        *(clip(f"{k:03}", "ddim") for k in range(200)),
    ]
    splits, _ = placed(before)
    again, left_out = placed(after)
    assert again.items() >= splits.items()
    assert {item.file.split("/")[1] for item in left_out} == {"blendface"}


def test_an_earlier_index_keeps_people_where_they_are():
    clips = [clip("000_001"), clip("002", "real")]
    splits, _ = placed(clips, earlier={"ff/000": "val", "ff/002": "test"})
    assert splits == {("simswap", "000_001"): "val", ("real", "002"): "test"}
    _, left_out = placed(clips, earlier={"ff/000": "val", "ff/001": "test"})
    assert left_out[0].key == "ff/000 val, ff/001 test"


def test_official_lists_go_before_all():
    clips = [
        clip("000_001"),
        clip("000_002", said=frozenset({"train"})),
        clip("002", "real"),
        clip("009", "real"),
    ]
    listed = {"ff/000": "test", "ff/001": "test", "ff/002": "val"}
    splits, left_out = placed(clips, listed, earlier={"ff/000": "train"})
    assert splits["simswap", "000_001"] == "test"
    assert splits["real", "002"] == "val"
    assert [item.key for item in left_out] == ["ff/000 test, ff/002 val"]


def test_people_of_official_clips_stay_on_their_side():
    clips = [clip("000_001", said=frozenset({"val"})), clip("000", "real"), clip("001_000", "mraa")]
    splits, _ = placed(clips)
    assert set(splits.values()) == {"val"}


def test_what_is_not_tested_on_is_split_into_train_and_val():
    clips = [clip(f"{k:03}", "real", NO_TEST) for k in range(300)]
    results = list(place(clips, {}, {}, DRAW))
    counts = Counter(item.split for item in results)
    assert set(counts) == {"train", "val"}
    assert counts["val"] / 300 == pytest.approx(0.15 / 0.81, abs=0.07)
    assert {item.by for item in results} == {"official"}


def test_a_clip_that_says_test_is_in_test():
    splits, _ = placed(
        [clip("id0_id1_0000", said=TEST, domain="cdf"), clip("id0_0000", "real", domain="cdf")]
    )
    assert set(splits.values()) == {"test"}


def test_another_seed_draws_another_split():
    clips = [clip(f"{k:03}", "real") for k in range(100)]
    assert placed(clips)[0] == placed(clips[::-1])[0]
    assert placed(clips)[0] != placed(clips, draw=Draw(SHARES, 1))[0]


def test_nobody_is_tied_to_a_test_who_must_not_be_tested_on():
    clips = [clip("000", "real", TEST), clip("001", "real", NO_TEST), clip("001", "ddim"), clip("000_001")]
    splits, left_out = placed(clips)
    assert not people_on_two_sides(clips, splits)
    assert splits["real", "001"] == splits["ddim", "001"] != "test"
    assert len(left_out) == 1
