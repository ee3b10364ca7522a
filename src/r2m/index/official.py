"""FaceForensics++'s official split: `train.json`, `val.json`, `test.json` with pairs of people."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from r2m.errors import R2MError
from r2m.index.clips import Split
from r2m.index.json_file import read_json

SPLITS: tuple[Split, ...] = ("train", "val", "test")
# Folders of a data set in which the lists may lie.
FOLDERS = (".", "splits", "dataset/splits")


class Lists(NamedTuple):
    """Person → split, and the absolute paths of the files that say so."""

    people: Mapping[str, Split]
    files: tuple[str, ...] = ()


def find(folders: Iterable[Path], asked: Iterable[Path] = ()) -> Lists:
    """Return the first lists that lie in `asked`, or in or near one of the `folders`; empty without any.

    Raises:
        R2MError: a folder of `asked` is missing, or a list is none of pairs, or a person stands in two.
    """
    for folder in asked:
        if not folder.is_dir():
            raise R2MError(f"--splits {folder}: no such folder")
    near = [folder / name for folder in folders if folder.is_dir() for name in FOLDERS]
    for folder in (*asked, *near):
        files = {split: folder / f"{split}.json" for split in SPLITS}
        if all(file.is_file() for file in files.values()):
            lists = {split: _pairs(file) for split, file in files.items()}
            if None not in lists.values():
                split_of = _by_person(folder, {split: names or [] for split, names in lists.items()})
                return Lists(split_of, tuple(os.path.abspath(file) for file in files.values()))
    return Lists({})


def _by_person(folder: Path, lists: Mapping[Split, list[str]]) -> Mapping[str, Split]:
    split_of: dict[str, Split] = {}
    for split, names in lists.items():
        for name in names:
            if split_of.setdefault(f"ff/{name}", split) != split:
                first = split_of[f"ff/{name}"]
                raise R2MError(f"{folder}: {name!r} stands in {first}.json and {split}.json; expected one")
    return split_of


def _pairs(path: Path) -> list[str] | None:
    """Return the names in a list of pairs; None if the file holds something else than a list."""
    content = read_json(path)
    if not isinstance(content, list):
        return None
    for pair in content:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise R2MError(f"{path}: expected pairs of names such as ['071', '054'], got {pair!r}")
    return [name for pair in content for name in pair]
