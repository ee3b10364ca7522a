"""Maps laid over photographs, and their files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import r2m
from drawn_videos import two_faces
from r2m.detection.detecting import detect, seen_and_scored
from r2m.detection.explanations import most_fake, write_explanations
from r2m.detection.finding import FaceFinder, scaling
from r2m.detection.listing import files_of
from r2m.detection.overlay import existing, overlaid, overlay_stems, placed_map
from r2m.errors import R2MError

S = 24


@given(
    st.floats(0, 6.28), st.floats(0.3, 3.0), st.floats(60, 100), st.floats(60, 100), st.integers(5, S - 6),
    st.integers(5, S - 6),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_map_lies_where_its_crop_was_cut(angle, scale, x, y, row, column):
    """A blob of the map lands where the transform back leads it."""
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([linear, [S / 2, S / 2] - linear @ [x, y]])
    rows, columns = np.mgrid[:S, :S]
    blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * (1.5 * max(1, scale)) ** 2))
    placed, is_seen = placed_map((160, 160), blob.astype(np.float32), matrix)
    expected = np.linalg.solve(linear, [column, row] - matrix[:, 2])
    found = np.unravel_index(placed.argmax(), placed.shape)[::-1]
    assert np.abs(found - expected).max() <= 1 + 1 / scale
    assert is_seen[placed > 0.5].all()
    # What is seen has the area of the crop.
    assert is_seen.sum() == pytest.approx((S / scale) ** 2, rel=0.2, abs=16)


def test_a_whole_image_is_scaled_by_its_pixel_centres():
    matrix = scaling(200, 100, 50)
    np.testing.assert_allclose(matrix @ [-0.5, -0.5, 1], [-0.5, -0.5])
    np.testing.assert_allclose(matrix @ [199.5, 99.5, 1], [49.5, 49.5])


def test_the_photograph_stays_visible_and_is_untouched_elsewhere():
    photograph = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0, -40], [0, 1.0, -30]])
    found = overlaid(photograph, np.linspace(0, 1, S * S, dtype=np.float32).reshape(S, S), matrix)
    _, is_seen = placed_map(photograph.shape, np.ones((S, S), np.float32), matrix)
    assert is_seen[30 : 30 + S, 40 : 40 + S].all()
    assert is_seen.sum() == S * S
    np.testing.assert_array_equal(found[~is_seen], photograph[~is_seen])
    inside = found[is_seen].astype(float).mean(axis=1), photograph[is_seen].astype(float).mean(axis=1)
    assert np.corrcoef(*inside)[0, 1] > 0.7


def test_names_follow_the_folders_of_the_files(tmp_path):
    album = [Path("album/a.png"), Path("album/b.png")]
    assert list(overlay_stems(album, tmp_path).values()) == [tmp_path / "a.png", tmp_path / "b.png"]
    deep = [Path("album/x/a.png"), Path("album/y/a.png"), Path("/else/a.png")]
    stems = overlay_stems(deep, tmp_path)
    assert len(set(stems.values())) == 3
    assert all(stem.is_relative_to(tmp_path) and stem.name == "a.png" for stem in stems.values())
    for name in ("a.png-face0.png", "a.png-face12.png", "a.png-faces.png", "aa.png-face0.png"):
        (tmp_path / name).touch()
    assert [path.name for path in existing(tmp_path / "a.png")] == ["a.png-face0.png", "a.png-face12.png"]


@pytest.fixture
def finder(model, faces):
    detector = r2m.load(model, device="cpu")
    return detector, FaceFinder(detector.config, faces / "yunet.onnx", every=True, frames=4)


def test_a_face_knows_where_it_was(finder, media, one_thread):
    """The middle of a disc is in the middle of what its map covers."""
    detector, find = finder
    for name, count in (("a.png", 2), ("b.mp4", 8)):
        seen = find(media / name)
        assert len(seen.faces) == count
        for face in seen.faces:
            picture = find.picture(seen.path, face)
            assert picture.shape == (128, 256, 3)
            left, top, width, height = face.box
            middle = face.matrix @ [left + width / 2, top + height / 2, 1]
            size = detector.config.image_size
            assert np.abs(middle - size / 2).max() < 0.15 * size
            colour = picture[top + height // 2, left + width // 2].astype(int)
            crop = face.crop[size // 2, size // 2].astype(int)
            assert np.abs(colour - crop).max() < 60, "the frame is the one that the face was seen on"


def test_of_a_video_the_most_fake_frame_is_shown(finder, media, tmp_path, one_thread):
    detector, find = finder
    ((seen, detection),) = seen_and_scored([media / "b.mp4"], detector, find)
    shown = list(most_fake(seen, detection))
    assert [face.number for face in shown] == [0, 1]
    for face in shown:
        greatest = max(detection.of(face.number), key=lambda one: one.probability)
        assert face.seconds == greatest.seconds
    paths = write_explanations(seen, detection, detector, find, tmp_path / "out/b.mp4")
    assert [path.name for path in paths] == ["b.mp4-face0.png", "b.mp4-face1.png"]
    assert sorted((tmp_path / "out").iterdir()) == paths


def test_files_without_a_face_have_no_explanation(finder, media, tmp_path, one_thread):
    detector, find = finder
    files = files_of([media])
    found = list(seen_and_scored(files, detector, find))
    assert [one for _, one in found] == list(detect(files, detector, find))
    for seen, detection in found:
        paths = write_explanations(seen, detection, detector, find, tmp_path / seen.path.name)
        assert len(paths) == len(detection.numbers)


def test_a_photograph_that_is_gone(finder, media, tmp_path, one_thread):
    detector, find = finder
    ((seen, detection),) = seen_and_scored([media / "a.png"], detector, find)
    (media / "a.png").unlink()
    with pytest.raises(R2MError, match=r"a\.png: cannot be read: .*, though a face was seen on it"):
        write_explanations(seen, detection, detector, find, tmp_path / "a.png")
    assert not list(tmp_path.glob("*.png"))


def test_aligned_crops_are_covered_whole(model, tmp_path, one_thread):
    import cv2

    cv2.imwrite(str(tmp_path / "crop.png"), two_faces(1)[0][:, :128])
    detector = r2m.load(model, device="cpu")
    find = FaceFinder(detector.config, None, every=False, frames=1)
    (face,) = find(tmp_path / "crop.png").faces
    size = detector.config.image_size
    picture = find.picture(tmp_path / "crop.png", face)
    assert picture.shape == (size, size, 3)
    assert placed_map(picture.shape, np.ones((size, size), np.float32), face.matrix)[1].all()
