"""Which files of a folder are taken in as images or videos of one class, and why the others are not."""

import logging
import os
from pathlib import Path

from r2m.data.listing import is_video, list_media, other_files
from r2m.data.naming import ImageClass, class_of, is_mask
from r2m.errors import R2MError

log = logging.getLogger(__name__)

Skipped = list[tuple[str, str]]


def intake(folder: Path, expected: ImageClass) -> tuple[list[Path], Skipped]:
    """Return the image and video files of `folder` (relative), and (path, reason) of what is left out.

    Left out are masks, where a folder holds both classes what lies in folders named after the other, and
    videos whose frames would be called as images of a folder are.

    Raises:
        R2MError: the folder is missing, or holds masks only or neither an image nor a video.
    """
    listed = list_media(folder)
    images = [file for file in listed if _is_usable(file)]
    files = [file for file in images if not is_mask(file)]
    if not files:
        raise R2MError(f"{folder}: holds nothing but masks or unusable names; expected images")
    left_out = [
        ((folder / file).as_posix(), "a name with a backslash or not in UTF-8")
        for file in listed
        if not _is_usable(file)
    ]
    left_out += [((folder / file).as_posix(), "a mask, by its name") for file in images if is_mask(file)]
    opposite: ImageClass = "fake" if expected == "real" else "real"
    wrong = [file for file in files if class_of(file) == opposite]
    if wrong:
        where = (
            f"{len(wrong)} of {len(files)} images lie in folders named after {opposite} ones,"
            f" as {wrong[0]} does"
        )
        if len(wrong) == len(files):
            log.warning("%s: %s; all are taken for %s ones", folder, where, expected)
        else:
            log.warning("%s: real and fake images in the same folder: %s, and are left out", folder, where)
            reason = f"in a folder named after {opposite} images"
            left_out += [((folder / file).as_posix(), reason) for file in wrong]
            files = [file for file in files if class_of(file) != opposite]
    folders = {parent for file in files if not is_video(file) for parent in file.parents}
    namesakes = [file for file in files if is_video(file) and file.with_suffix("") in folders]
    left_out += [((folder / file).as_posix(), "a video named like a folder of images") for file in namesakes]
    files = [file for file in files if file not in set(namesakes)]
    return files, [(_as_text(path), reason) for path, reason in left_out + other_files(folder)]


def _is_usable(file: Path) -> bool:
    """Tell whether tables can hold a file's name."""
    name = file.as_posix()
    return "\\" not in name and _as_text(name) == name


def _as_text(path: str) -> str:
    """Return a path with those bytes written out that are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def reason_of(reason: str) -> str:
    """Return a reason without what is particular to one file."""
    return reason.partition(": ")[0]
