import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2m.video.sample import policy, spread


@given(total=st.integers(1, 100_000), count=st.integers(1, 300))
def test_frames_are_spread_over_the_whole_video(total: int, count: int) -> None:
    numbers = spread(total, count)
    assert len(numbers) == min(total, count)
    assert numbers[0] >= 0
    assert numbers[-1] < total
    gaps = [b - a for a, b in itertools.pairwise(numbers)]
    assert not gaps or min(gaps) >= max(1, max(gaps) - 1)
    # No part at either end is longer than half of what lies between two frames, and the first N it is not.
    part = total / len(numbers)
    assert numbers[0] <= part / 2
    assert total - 1 - numbers[-1] <= part / 2
    assert numbers != list(range(count)) or part < 2


def test_all_frames() -> None:
    assert spread(5, None) == spread(5, 5) == spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(0, 8) == []


@pytest.mark.parametrize(("count", "text"), [(8, "up to 8 of each video, evenly"), (None, None)])
def test_policy(count: int | None, text: str | None) -> None:
    assert policy(count) == text
