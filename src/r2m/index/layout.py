"""What a layout is: how a data set lies on disk, and what its folders and lists say."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from r2m.index.clips import Clip, Skipped
from r2m.index.methods import DF40, Method


@dataclass(frozen=True)
class Context:
    """What the user said beside the paths.

    Attributes:
        own: the user's own methods.
        splits: folders with official lists.
        lists: absolute paths of the official lists of people that are used.
        roots: folders below which the files of an index may lie, the likeliest first.
        columns: column of the index → column of the user's table.
    """

    own: tuple[Method, ...] = ()
    splits: tuple[Path, ...] = ()
    lists: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """The user's own methods, then those of DF40."""
        return (*self.own, *DF40)


@dataclass(frozen=True)
class Layout:
    """One layout; its module's name is its name.

    Attributes:
        title: the data sets that lie so.
        expects: what it looks like, for messages.
        recognizes: whether a folder, or a file, is the top of such a data set.
        clips: yields what is in it, and what cannot be used.
        order: layouts with smaller numbers are asked first.
    """

    title: str
    expects: str
    recognizes: Callable[[Path], bool]
    clips: Callable[[Path, Context], Iterator[Clip | Skipped]]
    order: int = 50
    name: str = ""
