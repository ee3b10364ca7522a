import logging
import os
from pathlib import Path

import pytest

from r2m.data.intake import intake
from r2m.data.listing import find_images, is_video
from r2m.errors import R2MError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def names(files: list[Path]) -> list[str]:
    return [file.as_posix() for file in files]


def test_the_other_class_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, "0_real/a.png", "0_real/b.png", "1_fake/a.png")
    for expected, kept in (("fake", ["1_fake/a.png"]), ("real", ["0_real/a.png", "0_real/b.png"])):
        with caplog.at_level(logging.WARNING):
            files, skipped = intake(tmp_path, expected)
        assert names(files) == kept
        assert len(skipped) == 3 - len(kept)
        assert "real and fake images in the same folder" in caplog.text
        caplog.clear()


def test_a_folder_all_of_the_other_name_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "0_real/a.png")
    with caplog.at_level(logging.WARNING):
        assert names(intake(tmp_path, "fake")[0]) == ["0_real/a.png"]
    assert "all are taken for fake ones" in caplog.text


def test_masks_and_other_files_are_listed(tmp_path: Path) -> None:
    fill(
        tmp_path, "frames/0.png", "masks/0.png", "frames/0_mask.png", "frames/0.npy", "frames/1.npy", "README"
    )
    files, skipped = intake(tmp_path, "fake")
    assert names(files) == ["frames/0.png"]
    reasons = {Path(path).relative_to(tmp_path).as_posix(): reason for path, reason in skipped}
    assert reasons == {
        "masks/0.png": "a mask, by its name",
        "frames/0_mask.png": "a mask, by its name",
        "README": "no suffix of an image: none, 1 files in all",
        "frames/0.npy": "no suffix of an image: .npy, 2 files in all",
    }


def test_nothing_but_masks_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "masks/0.png")
    with pytest.raises(R2MError, match="nothing but masks"):
        intake(tmp_path, "fake")


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    fill(tmp_path / "data", "a/1.png")
    folder = fill(tmp_path / "mine", "x.png")
    (folder / "linked").symlink_to(tmp_path / "data")
    (folder / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (folder / "self").symlink_to(folder)
    assert names(find_images(folder)) == ["again/a/1.png", "linked/a/1.png", "x.png"]


def test_hidden_files_and_folders_called_like_images(tmp_path: Path) -> None:
    fill(tmp_path, "._a.png", ".hidden/a.png", "folder.png/a.PNG", "b.AVIF")
    assert names(find_images(tmp_path)) == ["b.AVIF", "folder.png/a.PNG"]


def test_names_that_no_table_holds_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "back\\slash.png", "notes.txt")
    (tmp_path / os.fsdecode(b"bad\xff.png")).write_bytes(b"x")
    files, skipped = intake(tmp_path, "fake")
    assert names(files) == ["a.png"]
    reasons = {Path(path).name: reason for path, reason in skipped}
    assert reasons.pop("notes.txt").startswith("no suffix")
    assert set(reasons.values()) == {"a name with a backslash or not in UTF-8"}
    assert "bad\\xff.png" in reasons


def test_videos_are_taken_in(tmp_path: Path) -> None:
    fill(
        tmp_path, "a.MP4", "b/c.webm", "b/d.mkv", "e.mov", "f.avi", "g.mpg", "masks/h.mp4", "0.png", "._a.mp4"
    )
    files, skipped = intake(tmp_path, "fake")
    assert names(files) == ["0.png", "a.MP4", "b/c.webm", "b/d.mkv", "e.mov", "f.avi"]
    assert [file.name for file in files if is_video(file)] == [file.name for file in files[1:]]
    assert names(find_images(tmp_path)) == ["0.png"]
    reasons = {Path(path).name: reason for path, reason in skipped}
    assert reasons == {"g.mpg": "no suffix of an image: .mpg, 1 files in all", "h.mp4": "a mask, by its name"}


def test_videos_of_the_other_class_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    files, skipped = intake(tmp_path, "real")
    assert names(files) == ["Celeb-real/id0_0000.mp4"]
    assert [reason for _, reason in skipped] == ["in a folder named after fake images"]


def test_a_video_beside_its_own_frames_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "000.mp4", "000/faces/1.png", "001.mp4", "002/1.mp4")
    files, skipped = intake(tmp_path, "real")
    assert names(files) == ["000/faces/1.png", "001.mp4", "002/1.mp4"]
    assert [(Path(path).name, reason) for path, reason in skipped] == [
        ("000.mp4", "a video named like a folder of images")
    ]


def test_nothing_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    with pytest.raises(R2MError, match=r"holds no image \(.*\.png.*\) and no video \(.*\.mp4"):
        intake(tmp_path, "real")
