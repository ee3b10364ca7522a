"""Merging methods by name: every module of `r2m.merge.methods` declares one, called `METHOD`."""

from functools import cache

from r2m.declared import declared, names_in
from r2m.merge import methods as modules
from r2m.merge.method import Method


@cache
def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return names_in(modules)


@cache
def get(name: str) -> Method:
    """Return a method.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    return declared(modules, name, "METHOD", "merging method")


def methods() -> dict[str, Method]:
    """Return all methods by name; each has a `title`, a `citation` and its `options`, a pydantic model."""
    return {name: get(name) for name in names()}
