"""Tuning methods by name: every module of `r2m.train.tuning.methods` declares one, called `METHOD`."""

import importlib
import pkgutil
from dataclasses import replace
from functools import cache

from r2m.errors import R2MError
from r2m.options import nearest
from r2m.train.tuning import methods
from r2m.train.tuning.method import Method


@cache
def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(methods.__path__)))


@cache
def get(name: str) -> Method:
    """Return a method.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    if name not in names():
        raise R2MError(f"unknown tuning method {name!r}{nearest(name, names())}")
    return replace(importlib.import_module(module_of(name)).METHOD, name=name)


def module_of(name: str) -> str:
    """Return the module of a method, which code that is found at run time is told by."""
    return f"{methods.__name__}.{name}"
