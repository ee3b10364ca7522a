import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from blake3 import blake3

from drawn_videos import colour, disc_detector, number_of, two_faces, write_video
from r2m.data import faces
from r2m.data.faces import Settings
from r2m.data.images import Image, read_image
from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.files import temporary_path
from r2m.video import extract
from r2m.video.extract import COLUMNS, VideoFaces, VideoFile, VideoOptions, extract_videos

WHOLE = Settings(FacesOptions(detector="none", crop_size=64), image_size=48, seed=0)
EIGHT = VideoOptions(frames=8, faces="largest", encode="none")
EVENLY = [2, 7, 12, 17, 22, 27, 32, 37]


@pytest.fixture
def detecting(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a detector of drawn faces."""
    with disc_detector(tmp_path) as model:
        yield Settings(FacesOptions(crop_size=64), image_size=48, seed=0, detector=model)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("film") / "a.mp4", two_faces(40))


def run(
    out: Path,
    *paths: Path,
    settings: Settings = WHOLE,
    options: VideoOptions = EIGHT,
    crops: bool = False,
    state: Path | None = None,
) -> VideoFaces:
    videos = [VideoFile(path, path.stem) for path in paths]
    return extract_videos(
        *(videos, settings, options, "p", out / "images", out / "crops" if crops else None),
        state or out / "state",
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_video_with_two_moving_faces_gives_crops_of_one(
    film: Path, tmp_path: Path, detecting: Settings
) -> None:
    result = run(tmp_path, film, settings=detecting, crops=True)
    table = result.table
    assert result.skipped == []
    assert tuple(table.columns) == COLUMNS
    assert list(table["frame"]) == EVENLY
    assert list(table["image_id"]) == [f"p/a/{number:06d}" for number in EVENLY]
    assert set(table["video"]) == {"a"}
    assert set(table["track"]) == {0}
    assert set(table["digest"]) == {read_digest(film)}
    crops = [read_image(tmp_path / "images" / file)[0] for file in table["file"]]
    assert all(crop.shape == (64, 64, 3) for crop in crops)
    assert [colour(crop) for crop in crops] == ["red"] * 8
    assert all(points.shape == (5, 2) and points.dtype == np.float32 for points in table["landmarks"])
    assert snapshot(tmp_path / "images") == snapshot(tmp_path / "crops")


def read_digest(path: Path) -> str:
    return blake3(path.read_bytes()).hexdigest()


def test_all_gives_both_faces_each_as_a_video_of_its_own(
    film: Path, tmp_path: Path, detecting: Settings
) -> None:
    options = VideoOptions(frames=8, faces="all", encode="none")
    table = run(tmp_path, film, settings=detecting, options=options).table
    assert list(table["frame"]) == EVENLY * 2
    assert list(table["video"]) == ["a/track0"] * 8 + ["a/track1"] * 8
    assert list(table["image_id"][:2]) == ["p/a/track0/000002", "p/a/track0/000007"]
    seen = [colour(read_image(tmp_path / "images" / file)[0]) for file in table["file"]]
    assert seen == ["red"] * 8 + ["green"] * 8


def test_the_right_frames_are_taken(film: Path, tmp_path: Path) -> None:
    """Without a detector a whole frame is the crop, with its number on it."""
    settings = Settings(FacesOptions(detector="none", crop_size=128), image_size=128, seed=0)
    table = run(tmp_path, film, settings=settings).table
    assert [number_of(read_image(tmp_path / "images" / file)[0]) for file in table["file"]] == EVENLY
    every = run(tmp_path / "every", film, options=VideoOptions(None, "largest", "none")).table
    assert list(every["frame"]) == list(range(40))


def test_jpeg_is_written_as_of_all_other_images(film: Path, tmp_path: Path) -> None:
    table = run(tmp_path, film, options=VideoOptions(3, "largest", "jpeg"), crops=True).table
    for image_id, file in zip(table["image_id"], table["file"], strict=True):
        crop = read_image((tmp_path / "crops" / file).with_suffix(".png"))[0]
        faces.write_encoded(tmp_path / "expected.jpg", crop, image_id, WHOLE)
        assert (tmp_path / "images" / file).read_bytes() == (tmp_path / "expected.jpg").read_bytes()


def test_a_face_that_is_away_for_a_while_is_the_same(tmp_path: Path, detecting: Settings) -> None:
    away = write_video(tmp_path / "a.mp4", two_faces(40, seen=[not 10 <= i < 20 for i in range(40)]))
    table = run(tmp_path, away, settings=detecting).table
    assert list(table["frame"]) == [2, 7, 22, 27, 32, 37]


def test_a_face_on_too_few_frames_is_none(tmp_path: Path, detecting: Settings) -> None:
    brief = [picture[:, :150].copy() for picture in two_faces(40, seen=[i < 5 for i in range(40)])]
    path = write_video(tmp_path / "a.mp4", brief)
    result = run(tmp_path, path, settings=detecting)
    assert result.table.empty
    assert result.skipped == [(path.as_posix(), "a face in too few frames: 1 of 8, expected 2 or more")]


def test_each_video_that_gives_nothing_is_one_row(film: Path, tmp_path: Path, detecting: Settings) -> None:
    empty, blank, cut = tmp_path / "empty.mp4", tmp_path / "blank.mp4", tmp_path / "cut.mp4"
    empty.write_bytes(b"")
    write_video(blank, [np.full((64, 64, 3), 128, np.uint8)] * 12)
    cut.write_bytes(film.read_bytes()[:2000])
    result = run(tmp_path, empty, blank, film, cut, tmp_path / "absent.mp4", settings=detecting)
    assert set(result.table["video"]) == {"a"}
    assert [(Path(path).name, reason) for path, reason in result.skipped] == [
        ("empty.mp4", "cannot be read: empty"),
        ("blank.mp4", "no face found with a score of 0.6 or more: none of 8 frames"),
        ("cut.mp4", "cannot be read: no whole video that FFmpeg knows"),
        ("absent.mp4", "cannot be read: No such file or directory"),
    ]


def test_an_oblong_video_is_no_aligned_crop(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [np.full((32, 128, 3), 128, np.uint8)] * 3)
    assert run(tmp_path, path).skipped[0][1].startswith("no aligned crop: 128×32 pixels")


def test_nothing_depends_on_threads_or_on_what_else_there_is(film: Path, tmp_path: Path) -> None:
    copies = [Path(shutil.copy(film, tmp_path / f"{name}.mp4")) for name in "bcd"]
    made = []
    for threads in (1, 3):
        settings = Settings(WHOLE.options, 48, 0, threads=threads)
        result = run(tmp_path / str(threads), film, *copies, settings=settings, options=EIGHT)
        made.append(
            (
                result.table.drop(columns=["landmarks", "embedding"]),
                snapshot(tmp_path / str(threads) / "images"),
            )
        )
    pd.testing.assert_frame_equal(made[0][0], made[1][0])
    assert made[0][1] == made[1][1]
    assert len(made[0][1]) == 32
    run(tmp_path / "alone", film)
    assert snapshot(tmp_path / "alone" / "images") == {
        name: content for name, content in made[0][1].items() if name.startswith("a/")
    }


def test_a_killed_run_goes_on_to_the_same_bytes(
    film: Path, tmp_path: Path, detecting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_video(tmp_path / "b.mp4", two_faces(30))
    whole = run(tmp_path / "whole", film, other, settings=detecting)
    state = tmp_path / "state"
    read: list[str] = []
    video = extract.Video

    class Dying(video):
        def __init__(self, path: Path) -> None:
            read.append(path.name)
            super().__init__(path)

        def frames(self, numbers: list[int]) -> Iterator[tuple[int, Image]]:
            for count, pair in enumerate(super().frames(numbers)):
                if len(read) == 2 and count == 4:
                    raise KeyboardInterrupt
                yield pair

    monkeypatch.setattr(extract, "Video", Dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", film, other, settings=detecting, state=state)
    (kept,) = state.iterdir()
    temporary_path(state / "left").mkdir()
    resumed = run(tmp_path / "resumed", film, other, settings=detecting, state=state)
    assert read == ["a.mp4", "b.mp4", "b.mp4"]
    assert snapshot(tmp_path / "resumed" / "images") == snapshot(tmp_path / "whole" / "images")
    pd.testing.assert_frame_equal(resumed.table, whole.table)
    # A crash of the machine may leave empty files.
    next(kept.glob("*.png")).write_bytes(b"")
    again = run(tmp_path / "again", film, other, settings=detecting, state=state)
    assert read[3:] == ["a.mp4"]
    pd.testing.assert_frame_equal(again.table, whole.table)


@pytest.mark.parametrize(
    ("settings", "options", "is_read_again"),
    [
        (WHOLE, EIGHT, False),
        (WHOLE, VideoOptions(8, "largest", "jpeg"), False),
        (Settings(FacesOptions(detector="none", crop_size=64, jpeg_quality=(50, 60)), 32, 1), EIGHT, False),
        (WHOLE, VideoOptions(7, "largest", "none"), True),
        (WHOLE, VideoOptions(8, "all", "none"), True),
        (Settings(FacesOptions(detector="none", crop_size=65), 48, 0), EIGHT, True),
    ],
)
def test_what_is_kept_is_used_for_the_same_bytes_and_options_alone(
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    options: VideoOptions,
    is_read_again: bool,
) -> None:
    run(tmp_path / "first", film, state=tmp_path / "state")
    read: list[Path] = []
    video = extract.Video
    monkeypatch.setattr(extract, "Video", lambda path: (read.append(path), video(path))[1])
    moved = Path(shutil.copy(film, tmp_path / "moved.mp4"))
    run(tmp_path / "second", moved, settings=settings, options=options, state=tmp_path / "state")
    assert bool(read) == is_read_again


def test_a_reason_is_kept_as_well(
    tmp_path: Path, detecting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = write_video(tmp_path / "a.mp4", [np.full((64, 64, 3), 128, np.uint8)] * 12)
    first = run(tmp_path / "first", blank, settings=detecting, state=tmp_path / "state")
    monkeypatch.setattr(extract, "Video", None)
    assert (
        run(tmp_path / "second", blank, settings=detecting, state=tmp_path / "state").skipped == first.skipped
    )


def test_memory_is_of_one_frame(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pictures but the one that is looked at are let go of."""
    alive: list[weakref.ref[Image]] = []
    video = extract.Video

    class Watched(video):
        def frames(self, numbers: list[int]) -> Iterator[tuple[int, Image]]:
            for number, image in super().frames(numbers):
                assert sum(reference() is not None for reference in alive) <= 1
                alive.append(weakref.ref(image))
                yield number, image
                del image

    monkeypatch.setattr(extract, "Video", Watched)
    run(tmp_path, film, options=VideoOptions(None, "largest", "none"))
    assert len(alive) == 40


def test_a_shape_that_opencv_refuses_ends_nothing(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resize = cv2.resize
    monkeypatch.setattr(cv2, "resize", lambda *args, **options: resize(np.zeros((0, 0, 3), np.uint8), (8, 8)))
    assert run(tmp_path, film).skipped[0][1].startswith("cannot be aligned: ")


def test_two_videos_of_one_name_are_an_error(film: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(film, tmp_path / "a.mp4"))
    with pytest.raises(R2MError, match=r"two videos of the name 'a'"):
        run(tmp_path, film, copy)


def test_a_folder_that_was_written_before_is_written_again(film: Path, tmp_path: Path) -> None:
    first = run(tmp_path, film, crops=True)
    before = snapshot(tmp_path)
    pd.testing.assert_frame_equal(run(tmp_path, film, crops=True).table, first.table)
    assert snapshot(tmp_path) == before
