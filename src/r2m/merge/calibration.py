"""`calibrate: svc` beside the options of any merging method; without torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from r2m.errors import R2MError
from r2m.merge.method import Method
from r2m.options import Section

KEY = "calibrate"
METHODS = ("svc",)


def expanded(method: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a method and its nested options with `calibrate: svc` written out: svc, with the method inside.

    Raises:
        R2MError: another value of `calibrate`, or a method that calibrates already.
    """
    if KEY not in options:
        return method, dict(options)
    calibrating = options[KEY]
    if calibrating not in METHODS:
        raise R2MError(f"{KEY}: expected {' or '.join(METHODS)}, got {calibrating!r}")
    if method in METHODS:
        raise R2MError(f"{KEY}: {method} calibrates already; expected it beside another method")
    inner = {name: value for name, value in options.items() if name != KEY}
    if "method" in inner:
        raise R2MError(f"options of {method}: unknown key 'method'")
    return calibrating, {"inner": {"method": method, **inner}}


def calibrated(method: Method, options: Section) -> tuple[Method, Section]:
    """Return the method that merges and its options: those inside of one that calibrates, else the same."""
    inner = getattr(options, "inner", None)
    return (method, options) if inner is None else inner.resolved


def completed(method: Method, options: Section) -> Method:
    """Return a method that calibrates with what the one inside needs of the training data."""
    merging, _ = calibrated(method, options)
    return method if merging is method else replace(method, statistics=merging.statistics)
