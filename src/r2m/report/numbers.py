"""How tables and figures round: the same number shows the same digits everywhere."""

from decimal import ROUND_HALF_UP, Decimal

# Decimal places of numbers in CSV files, which some tables and figures are made from and others not.
PLACES = 6


def rounded(value: float, digits: int = 3) -> float:
    """Return a number rounded to so many decimal places, as its text in a CSV file is: a half upwards.

    Rounding to `PLACES` first makes 0.7724999999, a mean of several, the 0.7725 that a file would hold.
    NaN and infinity stay as they are.
    """
    if not abs(value) < float("inf"):
        return value
    held = Decimal(f"{value:.{max(PLACES, digits)}f}")
    return float(held.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)) + 0.0


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Return the text of a number, with a sign before positive ones too if it is `signed`."""
    return f"{rounded(value, digits):{'+' if signed else ''}.{digits}f}"


def limits(low: float, high: float, digits: int = 3) -> str:
    """Return the text of an interval, as it stands behind an estimate."""
    return f"[{number(low, digits)}, {number(high, digits)}]"
