from pathlib import Path

import pytest

from r2m.data.naming import (
    ImageClass,
    Shown,
    class_of,
    is_mask,
    meaningful,
    of_frame,
    people_of,
    person_of_folder,
)
from r2m.data.naming import shown as shown_by_file


def shown(files: list[Path], image_class: ImageClass, frames: bool | None = None) -> list[Shown]:
    return [image for image in shown_by_file(files, image_class, frames).values()]


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("1_fake/a.png", "fake"),
        ("0_real/a.png", "real"),
        ("progan/car/0_real/a.png", "real"),
        ("Celeb-real/id0_0000/1.png", "real"),
        ("YouTube-real/00000/1.png", "real"),
        ("Celeb-synthesis/id0_id1_0000/1.png", "fake"),
        ("simswap_Real/a.png", "real"),
        ("cdf/Fake_from_Celeb-real/id0_id1_0000/1.png", "fake"),
        ("manipulated_sequences/Deepfakes/c23/frames/000_003/1.png", "fake"),
        ("original_sequences/youtube/c23/frames/000/1.png", "real"),
        ("whichisreal_Fake/a.png", "fake"),
        ("nature/n01/a.jpeg", "real"),
        ("ai/n01/a.png", "fake"),
        ("fake/real/a.png", "real"),
        ("whichisreal/a.png", None),
        ("deepfakes_detection_datasets/a.png", None),
        ("real-esrgan/a.png", None),
        ("realistic/a.png", None),
        ("faker/a.png", None),
        ("maintain/a.png", None),
        ("real.png", None),
    ],
)
def test_class_is_told_by_whole_words_of_the_innermost_folder(path: str, expected: str | None) -> None:
    assert class_of(Path(path)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("masks/000_003/1.png", True),
        ("x/Mask/1.png", True),
        ("a_mask.png", True),
        ("masked/1.png", False),
        ("mask_of_zorro.png", False),
    ],
)
def test_masks_by_name(path: str, expected: bool) -> None:
    assert is_mask(Path(path)) == expected


@pytest.mark.parametrize(
    ("name", "image_class", "people", "source"),
    [
        ("003_007", "fake", ("003", "007"), "003"),
        ("003_007", "real", ("003_007",), "003_007"),
        ("2019_05", "fake", ("2019_05",), "2019_05"),
        ("007_007", "fake", ("007",), "007"),
        ("id0_0002", "real", ("id0",), "id0_0002"),
        ("id0_id16_0002", "fake", ("id0", "id16"), "id0_0002"),
        ("01__walking_outside", "real", ("01",), "01__walking_outside"),
        ("01_02__walking_outside__YVGY8LOK", "fake", ("01", "02"), "01__walking_outside"),
        ("aaqaifqrwn", "real", ("aaqaifqrwn",), "aaqaifqrwn"),
        ("Αθηνά", "real", ("Αθηνά",), "Αθηνά"),
    ],
)
def test_people_by_the_names_of_known_data_sets(name, image_class, people, source) -> None:
    assert people_of(name, image_class) == (people, source)


def test_folders_of_frames_are_videos() -> None:
    files = paths("c23/frames/000/000.png", "c23/frames/000/141.png", "c23/frames/001/000.png")
    frames = shown(files, "real")
    assert [frame.video for frame in frames] == ["c23/frames/000", "c23/frames/000", "c23/frames/001"]
    assert [frame.people for frame in frames] == [("000",), ("000",), ("001",)]
    assert [frame.frame for frame in frames] == [0, 141, 0]


@pytest.mark.parametrize(
    "files",
    [
        ["000.png", "001.png"],
        ["p0/000.png", "p0/001.png", "p1/002.png"],
        ["train/000.png", "test/000.png"],
        ["fake/fake/000.png", "fake/fake/001.png"],
        ["Ann/Ann_0001.jpg", "Bob/Bob_0001.jpg"],
        ["a/x.png", "b/x.png"],
        ["holiday/IMG_0001.jpg", "party/IMG_0001.jpg"],
        ["256_256/000.png", "256_256/001.png"],
        ["a/0.png", "a/p.png", "a/q.png", "b/0.png", "b/p.png", "b/q.png"],
    ],
)
def test_photographs_are_no_videos(files: list[str]) -> None:
    assert all(image.video is None for image in shown(paths(*files), "fake"))


@pytest.mark.parametrize(
    "name",
    [
        *("7", "0007", "frame7", "frame_0007", "img-7", "7_0", "7_face1", "Frame 7", "vid_007", "out0007"),
        *("crop_007", "0007_crop", "00007_face_0", "frame_7_face_0", "007.0", "frame007@2x"),
    ],
)
def test_names_of_frames(name: str) -> None:
    assert [image.frame for image in shown(paths(f"a/{name}.png", f"b/{name}.png"), "real")] == [7, 7]


def test_folders_called_like_videos_of_known_data_sets_are_videos_whatever_is_in_them() -> None:
    files = paths("003_023/thumbnail.png", "003_023/x.png", "010_011/y.png")
    assert [image.people for image in shown(files, "fake")] == [("003", "023")] * 2 + [("010", "011")]
    files = paths("id0_0000/x.png", "id0_0001/y.png")
    assert [image.people for image in shown(files, "real")] == [("id0",)] * 2


def test_a_stray_image_is_of_the_video_that_it_lies_in() -> None:
    files = paths("a/0.png", "a/1.png", "a/thumbnail.png", "b/0.png", "b/1.png")
    assert [image.video for image in shown(files, "real")] == ["a", "a", "a", "b", "b"]
    assert shown(files, "real")[2].frame is None


def test_frames_in_a_flat_folder() -> None:
    files = paths("id0_id1_0002_15.png", "003_007_frame12.jpg", "faces/id3_0001-4.png", "003_007.png")
    fakes = shown(files, "fake")
    assert [image.video for image in fakes] == ["id0_id1_0002", "003_007", "faces/id3_0001", None]
    assert [image.source for image in fakes] == ["id0_0002", "003", "id3_0001", None]
    assert [image.frame for image in fakes] == [15, 12, 4, None]
    reals = shown(files, "real")
    assert reals[1].video is None, "frame 12 of the face 7 of the video 3, for all that a name can tell"
    assert reals[2].people == ("id3",)


def test_the_user_decides_what_is_a_video() -> None:
    portraits = paths("s1/1.pgm", "s2/1.pgm", "id0_0000_1.png")
    assert [image.video for image in shown(portraits, "real")] == ["s1", "s2", "id0_0000"]
    assert [image.video for image in shown(portraits, "real", frames=False)] == [None] * 3
    odd = paths("a/first.png", "a/last.png", "top.png", "of_any_name_0012.png")
    images = shown(odd, "real", frames=True)
    assert [image.video for image in images] == ["a", "a", None, "of_any_name"]
    assert images[3].frame == 12


@pytest.mark.parametrize(
    ("folder", "person"),
    [
        ("c23/frames/000", "000"),
        ("c40/frames/000", "000"),
        ("id7_0003", "id7"),
        ("Celeb-real/id7_0003", "id7"),
        ("A/s1", "A/s1"),
        ("frames", ""),
        (".", ""),
    ],
)
def test_person_of_a_folder(folder: str, person: str) -> None:
    assert person_of_folder(Path(folder)) == person


def test_meaningful_parts_leave_out_storage_and_class() -> None:
    assert meaningful(Path("1_fake/Frames/set/000")) == ("set", "000")


@pytest.mark.parametrize(
    ("video", "image_class", "people", "source"),
    [
        ("c23/videos/003_007", "fake", ("003", "007"), "003"),
        ("youtube/c23/videos/003", "real", ("003",), "003"),
        ("Celeb-synthesis/id0_id1_0002", "fake", ("id0", "id1"), "id0_0002"),
        ("01_02__walking__ABCDEFGH", "fake", ("01", "02"), "01__walking"),
        ("fake", "fake", ("fake",), "fake"),
        ("anna/video", "real", ("anna",), "anna"),
    ],
)
def test_frames_of_a_video_file_show_what_its_name_says(
    video: str, image_class: ImageClass, people: tuple[str, ...], source: str
) -> None:
    frame = of_frame(Path(video, "000012.jpg"), image_class)
    assert frame == Shown(video, people, source, 12)
