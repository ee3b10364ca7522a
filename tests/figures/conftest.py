"""Synthetic results as a fixture."""

from collections.abc import Callable

import pytest
from synthetic_results import Results, make_results


@pytest.fixture
def results() -> Callable[..., Results]:
    return make_results
