"""The same number shows the same digits, whichever file it was read from."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import r2m
from r2m.report.numbers import number, rounded

SOURCE = Path(r2m.__file__).parent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7725, "0.773"),
        (0.7724999999, "0.773"),
        (0.7965, "0.797"),
        (0.77249, "0.772"),
        (0.0005, "0.001"),
        (-0.0004, "0.000"),
        (-0.0125, "-0.013"),
        (1.0, "1.000"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_halves_go_up_as_in_the_file(value, text):
    assert number(value) == text
    if math.isfinite(value):
        assert number(float(f"{value:.6f}")) == text


def test_a_mean_has_the_digits_of_what_a_file_holds():
    generator = np.random.default_rng(0)
    for values in generator.integers(0, 1000, (2000, 2)) / 1000:  # every other mean is a half
        mean = float(np.mean(values))
        assert number(mean) == number(float(f"{mean:.6f}"))
        assert abs(rounded(mean) - mean) <= 0.0005 + 1e-9


def test_digits_and_signs():
    assert number(0.25, 1) == "0.3"
    assert number(7, 0) == "7"
    assert number(0.0125, signed=True) == "+0.013"
    assert number(1 / 3, 8) == "0.33333333"


def test_no_table_or_figure_rounds_on_its_own():
    """Thresholds in code, sizes and times are no results."""
    allowed = re.compile(r"threshold|1e6|seconds|peak|chance")
    for path in [*(SOURCE / "report").rglob("*.py"), *(SOURCE / "experiments").glob("*.py")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r":\+?\.[1-9]f\}", line) and path.name != "numbers.py":
                assert allowed.search(line), f"{path.name}: {line.strip()}"
