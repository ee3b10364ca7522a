"""Tuning methods by name: every module of `r2m.train.tuning.methods` declares one, called `METHOD`."""

from functools import cache

from r2m.declared import declared, names_in
from r2m.train.tuning import methods
from r2m.train.tuning.method import Method


@cache
def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return names_in(methods)


@cache
def get(name: str) -> Method:
    """Return a method.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    return declared(methods, name, "METHOD", "tuning method")


def module_of(name: str) -> str:
    """Return the module of a method, which code that is found at run time is told by."""
    return f"{methods.__name__}.{name}"
