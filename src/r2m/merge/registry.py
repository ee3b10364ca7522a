"""Merging methods by name: every module of `r2m.merge.methods` declares one, called `METHOD`."""

import importlib
import pkgutil
from dataclasses import replace
from functools import cache

from r2m.errors import R2MError
from r2m.merge import methods as modules
from r2m.merge.method import Method
from r2m.options import nearest


@cache
def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(modules.__path__)))


@cache
def get(name: str) -> Method:
    """Return a method.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    if name not in names():
        raise R2MError(f"unknown merging method {name!r}{nearest(name, names())}")
    return replace(importlib.import_module(f"r2m.merge.methods.{name}").METHOD, name=name)


def methods() -> dict[str, Method]:
    """Return all methods by name; each has a `title`, a `citation` and its `options`, a pydantic model."""
    return {name: get(name) for name in names()}
