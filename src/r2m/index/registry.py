"""Layouts by name: every module of `r2m.index.layouts` declares one, called `LAYOUT`."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from r2m.declared import declared, names_in
from r2m.errors import R2MError
from r2m.index import layouts as modules
from r2m.index.layout import Layout
from r2m.index.scan import children

# So many levels below a path data sets are looked for.
DEPTH = 3


@cache
def names() -> tuple[str, ...]:
    """Return the names of all layouts."""
    return names_in(modules)


@cache
def get(name: str) -> Layout:
    """Return a layout.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    return declared(modules, name, "LAYOUT", "layout")


@cache
def layouts() -> tuple[Layout, ...]:
    """Return all layouts in the order in which they are asked."""
    return tuple(sorted(map(get, names()), key=lambda layout: (layout.order, layout.name)))


def recognized(path: Path) -> list[tuple[Path, Layout]]:
    """Return the data sets at `path`, a folder or file, or in the folders below it.

    Raises:
        R2MError: there is no such path, or no layout knows anything of it.
    """
    if not path.exists():
        raise R2MError(f"{path}: no such file or folder")
    tops = list(_recognized(path, DEPTH))
    if not tops:
        expected = "; ".join(f"{layout.name} ({layout.expects})" for layout in layouts())
        raise R2MError(f"{path}: no data set is recognized; expected one of: {expected}")
    return tops


def _recognized(path: Path, depth: int) -> Iterator[tuple[Path, Layout]]:
    for layout in layouts():
        if layout.recognizes(path):
            yield path, layout
            return
    if depth:
        for name, is_folder in children(path).items():
            if is_folder:
                yield from _recognized(path / name, depth - 1)
