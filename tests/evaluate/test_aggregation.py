"""What a video's score is made of."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2m.evaluate.aggregation import AGGREGATIONS
from r2m.evaluate.options import Aggregation

frames = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=30)


def test_every_option_has_its_function() -> None:
    assert list(get_args(Aggregation)) == list(AGGREGATIONS)


@pytest.mark.parametrize("name", AGGREGATIONS)
@given(frames)
def test_as_in_pandas(name: Aggregation, rows: list[tuple[int, float]]) -> None:
    names, values = np.array([*zip(*rows, strict=True)]).reshape(2, -1)
    _, video = np.unique(names, return_inverse=True)
    expected = pd.Series(values).groupby(video).agg(name)
    np.testing.assert_allclose(AGGREGATIONS[name](values, video), expected.to_numpy(), rtol=1e-12)
