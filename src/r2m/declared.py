"""What modules of a package declare: one entry each, under the same constant, called like the module."""

import importlib
import pkgutil
from dataclasses import replace
from types import ModuleType
from typing import Any

from r2m.errors import R2MError
from r2m.options import nearest


def names_in(package: ModuleType) -> tuple[str, ...]:
    """Return the names of the modules of `package`, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def declared(package: ModuleType, name: str, constant: str, called: str) -> Any:
    """Return the entry, a data class, that a module of `package` calls `constant`, with its own `name`.

    Raises:
        R2MError: unknown name; the nearest known one is told, and what entries are `called`.
    """
    names = names_in(package)
    if name not in names:
        raise R2MError(f"unknown {called} {name!r}{nearest(name, names)}")
    return replace(getattr(importlib.import_module(f"{package.__name__}.{name}"), constant), name=name)
