"""Which files are looked at, and which specialists are asked."""

import re
from collections.abc import Iterable
from pathlib import Path

from r2m.data.listing import find_media
from r2m.errors import R2MError
from r2m.terminal import printable

# Where a folder of specialists has those of a name, as results/specialists does.
SPECIALIST = "seed*/model.safetensors"


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Return the files among `paths`, and the photographs and videos in folders among them, by path.

    Raises:
        R2MError: an address of the web, a path that is not there or cannot be read, or no file at all.
    """
    found: list[Path] = []
    for path in paths:
        name = printable(str(path))
        if re.match(r"[a-zA-Z][\w+.-]+:/", str(path)):
            raise R2MError(
                f"{name}: an address; expected files or folders of this machine: download it first"
            )
        try:
            if path.is_dir():
                found += [path / file for file in find_media(path)]
            elif path.exists():
                found.append(path)
            else:
                raise R2MError(f"{name}: no such file or folder")
        except OSError as error:  # a folder that may not be entered, or a name that is too long
            name = printable(str(error.filename or path))
            raise R2MError(f"{name}: cannot be read ({error.strerror})") from error
    if not found:
        names = ", ".join(printable(str(path)) for path in paths)
        raise R2MError(f"{names}: neither a photograph nor a video")
    return list(dict.fromkeys(found))


def specialist_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files among `paths`, and of folders NAME/seedN/model.safetensors, of each NAME the least N.

    Raises:
        R2MError: a path that is not there, or a folder without specialists.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            seeds = [list(folder.glob(SPECIALIST)) for folder in sorted(path.iterdir())]
            found = [min(own, key=lambda file: (len(file.parent.name), file)) for own in seeds if own]
            if not found:
                raise R2MError(f"{path}: no specialists; expected */{SPECIALIST} in it, or their files")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise R2MError(f"{path}: no such file or folder")
    return list(dict.fromkeys(files))
