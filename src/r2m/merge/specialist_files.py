"""The specialists of a merge by name, where patterns or folders stand for them; without torch."""

import glob
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from r2m.detection.listing import SPECIALIST, specialist_files
from r2m.errors import R2MError
from r2m.models.weight_files import INDEX_SUFFIX, index_of, models_in

logger = logging.getLogger(__name__)

# What a file may be called behind its specialist's name, beside its last suffix.
_INNER = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_NAME = re.compile(r"[^=/\s]+")


def with_names(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a recipe says, in which specialists are by name, and paths of theirs from `folder`.

    They may be given as a text or a list of texts: files, folders and patterns (`*`, `?`, `[…]`, and `**` for
    any folders), whose models are called by the stems of their files, or by the folder that holds one alone.
    A list may hold mappings of names to files as well. A pattern or folder does not stand for the base. All
    are sorted by name.

    Raises:
        R2MError: a pattern that fits nothing, a folder without weights, two models of one name, or a name
            that a specialist cannot have.
    """
    given = content.get("specialists")
    if not isinstance(given, str | list):
        return dict(content)
    base = content.get("base")
    base = None if base is None else Path(base).resolve()
    found: dict[str, Path] = {}
    for item in [given] if isinstance(given, str) else given:
        if isinstance(item, Mapping):
            pairs = [(f"{name}", folder / f"{path}") for name, path in item.items()]
        elif isinstance(item, str):
            pairs = [(name, path) for name, path in _found(item, folder) if path.resolve() != base]
            if not pairs:
                raise R2MError(f"specialists {item!r}: the base alone; expected models fine-tuned from it")
        else:
            raise R2MError(f"specialists: expected patterns, or names with their files, got {item!r}")
        for name, path in pairs:
            if found.setdefault(name, path).resolve() != path.resolve():
                raise R2MError(
                    f"specialists: {name!r} stands for {found[name]} and {path}; name them by NAME=FILE, or"
                    " by a mapping of names to files in a recipe"
                )
    found = dict(sorted(found.items()))
    logger.info("specialists: %s", ", ".join(f"{name} ({path})" for name, path in found.items()))
    return {**content, "specialists": found}


def _found(text: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield names and paths of the models that a file, a folder or a pattern stands for."""
    path = folder / text
    if path.is_dir():
        yield from _in_folder(path)
        return
    if path.exists():
        paths = [path]
    else:
        paths = sorted(folder / match for match in glob.glob(text, root_dir=folder, recursive=True))
    if not paths:
        raise R2MError(f"specialists {text!r}: fits no file or folder")
    for one in dict.fromkeys(index_of(path) or path for path in paths):
        yield _name(one), one


def _in_folder(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the models in a folder, which may be laid out as results/specialists is."""
    models = models_in(folder)
    for path in models:
        yield _name(path), path
    if models:
        return
    try:
        files = specialist_files([folder])
    except R2MError as error:
        raise R2MError(f"{folder}: neither a file of weights in it nor */{SPECIALIST}") from error
    yield from ((path.parents[1].name, path) for path in files)


def _name(path: Path) -> str:
    """Return what a model is called by the stem of its file or index, or by its folder."""
    name = os.path.abspath(path).rpartition(os.sep)[2]
    if not path.is_dir():
        stem = Path(path.name.removesuffix(INDEX_SUFFIX)).stem
        name = Path(stem).stem if Path(stem).suffix in _INNER else stem
    if not _NAME.fullmatch(name):
        raise R2MError(f"{path}: {name!r} is no name of a specialist, it holds blanks or =; give NAME=FILE")
    return name
