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


def check_writable(option: str, path: Path) -> None:
    """Refuse a file or folder that cannot be made; the folders above it may have to be made as well.

    Raises:
        R2MError: it names the `option` that `path` was given by.
    """
    place = Path(os.path.abspath(path))
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # the folders above tell
    except OSError as error:  # such as a name that is too long
        raise R2MError(f"{option}: {path}: cannot be written ({error.strerror})") from error
    above = place if os.path.isdir(place) else place.parent
    while not os.path.lexists(above):
        above = above.parent
    if not os.path.isdir(above):
        raise R2MError(f"{option}: {path}: cannot be written ({above} is no folder)")
    if not os.access(above, os.W_OK | os.X_OK):
        raise R2MError(f"{option}: {path}: cannot be written (no permission to write to {above})")


def check_readable(option: str, path: Path) -> None:
    """Refuse a file that cannot be read; raises R2MError, which names the `option` that it was given by."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise R2MError(f"{option}: {path}: cannot be read ({error.strerror or error})") from error


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
