"""What a command may write its table and images to."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from r2m.data.listing import is_image, is_video
from r2m.errors import R2MError


def check_output(out: Path, inputs: list[Path], force: bool) -> None:
    """Refuse an output that is a folder or one of the inputs, and one that exists unless `force`.

    Raises:
        R2MError: such an output.
    """
    if out.exists() and not out.is_file():
        nature = "a folder" if out.is_dir() else "no regular file"
        raise R2MError(f"{out}: is {nature}; expected the name of a file")
    if any(_is_input(out.resolve(), path.resolve()) for path in inputs):
        raise R2MError(f"{out}: is one of the inputs; expected another name for the output")
    if os.path.lexists(out) and not force:
        raise R2MError(f"{out}: exists; --force replaces it")


def check_folder(folder: Path, inputs: Sequence[Path], existing: Iterable[Path], force: bool) -> None:
    """Refuse a folder that is none, lies in one of the inputs, or holds `existing` outputs unless `force`.

    Raises:
        R2MError: such a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise R2MError(f"{folder}: is no folder; expected the name of one")
    for path in inputs:
        if folder.resolve().is_relative_to(path.resolve()):
            raise R2MError(f"{folder}: lies in {path}, one of the inputs; expected another folder")
    for path in existing:
        if not force:
            raise R2MError(f"{path}: exists; --force replaces it")


def _is_input(out: Path, given: Path) -> bool:
    """Tell whether `out` is the file `given`, or an image or video that lies in the folder `given`."""
    return out == given or (out.is_file() and (is_image(out) or is_video(out)) and out.is_relative_to(given))
