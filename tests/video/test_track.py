from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2m.video.track import Boxes, Track, by_area, closeness, least_frames
from r2m.video.track import tracks as tracks_at


def boxes(*faces: tuple[float, float, float, float]) -> Boxes:
    return np.array(faces, np.float32).reshape(-1, 4)


def tracks(frames: Sequence[Boxes], seconds: float = 0.04) -> list[Track]:
    """Return the tracks of frames so many seconds apart."""
    return tracks_at(frames, [seconds * i for i in range(len(frames))])


coordinate, side = st.integers(0, 200), st.integers(1, 60)
frames = st.lists(st.lists(st.tuples(coordinate, coordinate, side, side), max_size=4), max_size=8)


@given(frames)
def test_every_face_is_in_one_track_and_no_track_has_two_of_a_frame(drawn: list) -> None:
    found = tracks([boxes(*faces) for faces in drawn])
    everything = sorted(place for track in found for place in track)
    assert everything == [(frame, face) for frame, faces in enumerate(drawn) for face in range(len(faces))]
    for track in found:
        assert len({frame for frame, _ in track}) == len(track)
        assert track == sorted(track)


@given(frames, st.integers(-50, 50), st.sampled_from([1, 2, 4]))
def test_tracks_do_not_depend_on_place_or_scale(drawn: list, move: int, scale: int) -> None:
    places = [boxes(*faces) for faces in drawn]
    moved = [(faces + np.float32([move, move, 0, 0])) * np.float32(scale) for faces in places]
    assert tracks(places) == tracks(moved)


@given(frames)
def test_closeness_is_symmetric(drawn: list) -> None:
    if len(drawn) >= 2:
        first, second = boxes(*drawn[0]), boxes(*drawn[1])
        there = closeness(first, second, np.full(len(first), 2.0))
        np.testing.assert_allclose(there, closeness(second, first, np.full(len(second), 2.0)).T)
        assert (np.diag(closeness(first, first, np.zeros(len(first)))) == 1).all()


def test_two_faces_that_pass_each_other_by_are_told_apart() -> None:
    left = [(10 + 12 * i, 50, 40, 40) for i in range(10)]
    right = [(200 - 12 * i, 110, 40, 40) for i in range(10)]
    # The detector's order changes from frame to frame.
    found = tracks(
        [boxes(*((a, b) if i % 2 else (b, a))) for i, (a, b) in enumerate(zip(left, right, strict=True))]
    )
    assert [len(track) for track in found] == [10, 10]
    assert found[0] == [(i, i % 2) for i in range(10)]
    assert found[1] == [(i, 1 - i % 2) for i in range(10)]


def test_a_face_is_found_again_where_it_does_not_overlap_itself() -> None:
    assert len(tracks([boxes((0, 0, 40, 40)), boxes((40, 0, 40, 40))])) == 1
    assert len(tracks([boxes((0, 0, 40, 40)), boxes((45, 0, 40, 40))])) == 2
    assert len(tracks([boxes((0, 0, 40, 40)), boxes((0, 0, 90, 90))])) == 2


@pytest.mark.parametrize(("widths", "seconds", "count"), [(2, 1, 1), (2, 0.5, 2), (3, 60, 1), (3.1, 60, 2)])
def test_a_face_may_move_farther_the_longer_it_was_not_looked_at(
    widths: float, seconds: float, count: int
) -> None:
    assert len(tracks([boxes((0, 0, 40, 40)), boxes((40 * widths, 0, 40, 40))], seconds)) == count


@pytest.mark.parametrize("seconds", [0.04, 5])
def test_two_people_side_by_side_keep_their_tracks_when_one_is_missed(seconds: float) -> None:
    left, right = (0, 0, 40, 40), (60, 0, 40, 40)
    found = tracks([boxes(left, right), boxes(right), boxes(left), boxes(left, right)], seconds)
    assert found == [[(0, 0), (2, 0), (3, 0)], [(0, 1), (1, 0), (3, 1)]]


def test_a_face_that_is_missed_on_a_frame_does_not_give_its_track_away() -> None:
    near, far = (0, 0, 40, 40), (44, 0, 40, 40)
    found = tracks([boxes(near, far), boxes(far), boxes(near, far)])
    assert found == [[(0, 0), (2, 0)], [(0, 1), (1, 0), (2, 1)]]


def test_the_largest_track_is_first() -> None:
    places = [boxes((0, 0, 20, 20), (100, 0, 40, 40), (300, 0, 20, 20)) for _ in range(3)]
    places.append(boxes((0, 0, 20, 20), (300, 0, 20, 20)))
    ordered = by_area(tracks(places), places)
    assert [track[0] for track in ordered] == [(0, 1), (0, 0), (0, 2)]
    assert by_area([], []) == []


@pytest.mark.parametrize(("frames", "least"), [(1, 1), (4, 1), (5, 2), (8, 2), (32, 8), (10_000, 8)])
def test_enough_frames(frames: int, least: int) -> None:
    assert least_frames(frames) == least
