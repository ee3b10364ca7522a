import pandas as pd
import pytest

from r2m.datasets.take import (
    identities,
    image_rows,
    sampled,
    sources,
    with_splits,
    with_splits_of_people,
)


def frames(video, numbers, **values):
    return [{"video": video, "frame": n, "path": f"{video}/{n}.png", **values} for n in numbers]


def test_videos_are_sampled_by_frame_and_photographs_stay():
    rows = pd.DataFrame(
        [*frames("a", [30, 0, 10, 20]), *frames("b", [5]), *frames(None, [None, None, None])]
    ).astype({"frame": "Int64"})
    kept = sampled(rows, 2)
    assert kept["path"].tolist() == ["a/30.png", "a/10.png", "b/5.png", *["None/None.png"] * 3]
    assert len(sampled(rows, None)) == len(rows)
    assert sampled(rows[:0], 2).empty


@pytest.mark.parametrize(
    ("splits", "given_splits", "expected"),
    [
        ("all", ["train", "val", "test"], ["train", "val", "test"]),
        ("test", ["train", "val", "test"], ["test"]),
        ("test", ["train", "val"], []),
        ("test_if_any", ["train", "val", "test"], ["test"]),
        ("test_if_any", ["train", "val"], ["test", "test"]),
    ],
)
def test_splits_by_role(splits, given_splits, expected):
    assert with_splits(pd.DataFrame({"split": given_splits}), splits)["split"].tolist() == expected


def test_images_of_one_name_but_for_the_suffix(tmp_path):
    rows = pd.DataFrame({"path": ["a/1.png", "a/1.jpg", "a/2.png"]})
    named, skipped = image_rows(rows, "swap", tmp_path)
    assert named["image_id"].tolist() == ["swap/a/1", "swap/a/2"]
    assert named["path"].iloc[1] == f"{tmp_path.as_posix()}/a/2.png"
    assert skipped == [
        (
            f"{tmp_path.as_posix()}/a/1.jpg",
            f"named like another image but for the suffix: {tmp_path.as_posix()}/a/1.png",
        )
    ]


def test_people_without_a_name_are_their_video_or_image():
    rows = pd.DataFrame(
        {"identity": ["p", None, None], "video": ["v", "v", None], "image_id": ["s/1", "s/2", "s/3"]}
    )
    assert identities(rows) == ["p", "v", "s/3"]
    assert identities(rows, "heygen")[0] == "heygen/p"


def images(prefix, domain, video, numbers):
    return [
        {"image_id": f"{prefix}/{video}/{n}", "domain": domain, "video": video, "frame": n} for n in numbers
    ]


def test_a_fake_knows_the_nearest_frame_of_the_real_it_was_made_from():
    reals = pd.DataFrame(
        [
            *images("ff", "ff", "000", ["0", "10", "20"]),
            *images("cdf", "cdf", "id0_0001", ["4"]),
            *images("cdf", "cdf", "000", ["3"]),
            *images("ff", "ff", "007/track1", ["2"]),
            *images("ff", "ff", "009/track0", ["2", "6"]),
            *images("ff", "ff", "009/track1", ["2"]),
            {"image_id": "ff/photo", "domain": "ff", "video": None, "frame": None},
        ]
    )
    fakes = pd.DataFrame(
        [
            *images("s", "ff", "000_003", ["10", "14", "15", "999"]),
            *images("s", "cdf", "id0_id5_0001", ["0"]),
            *images("s", "ff", "000", ["19"]),  # an entire synthesis is called after its real
            *images("s", "ff", "007_008/track0", ["1"]),
            *images("s", "ff", "009_008/track0", ["6"]),
            *images("s", "ff", "009_008/track1", ["2", "6"]),
            *images("s", "ff", "003_000", ["10"]),
            {"image_id": "s/photo", "domain": "ff", "video": None, "frame": None},
        ]
    )
    assert sources(fakes, reals) == [
        *("ff/000/10", "ff/000/10", "ff/000/10", "ff/000/20"),
        *("cdf/id0_0001/4", "ff/000/20", "ff/007/track1/2"),
        *("ff/009/track0/6", "ff/009/track1/2", "ff/009/track1/2", None, None),
    ]
    assert sources(fakes, reals[:0]) == [None] * len(fakes)


def test_people_of_fakes_keep_the_split_of_their_reals():
    fakes = pd.DataFrame(
        {
            "path": ["a", "b", "c", "d"],
            "domain": "cdf",
            "identity": ["p", "p", "q", "new"],
            "identity2": ["r", "q", None, None],
            "split": "test",
        }
    )
    split_of = {("cdf", "p"): "train", ("cdf", "q"): "test", ("ff", "r"): "test"}
    trained, skipped = with_splits_of_people(fakes, split_of, True)
    assert dict(zip(trained["path"], trained["split"], strict=True)) == {
        "a": "train",
        "c": "test",
        "d": "test",
    }
    assert skipped == [("b", "people of different splits are on it: 'train' and 'test' (q)")]
    unseen, skipped = with_splits_of_people(fakes, split_of, False)
    assert unseen["path"].tolist() == ["c", "d"]
    assert skipped[0] == ("a", "an unseen generator is tested only, and this person is in the split 'train'")
