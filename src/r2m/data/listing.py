"""Which files of a folder are images or videos."""

import os
from collections.abc import Iterator
from pathlib import Path

from r2m.errors import R2MError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".webp"}
    | {".avif", ".gif", ".jp2", ".j2k", ".tga"}
)
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm"})


def is_image(file: Path) -> bool:
    """Tell whether a file is an image by its suffix."""
    return file.suffix.lower() in SUFFIXES


def is_video(file: Path) -> bool:
    """Tell whether a file is a video by its suffix."""
    return file.suffix.lower() in VIDEO_SUFFIXES


def find_images(folder: Path) -> list[Path]:
    """Return the visible image files below `folder`, relative to it, sorted by their POSIX path."""
    return [file for file in find_files(folder) if is_image(file)]


def find_media(folder: Path) -> list[Path]:
    """Return the visible image and video files below `folder` like `find_images`."""
    return [file for file in find_files(folder) if is_image(file) or is_video(file)]


def find_files(folder: Path) -> list[Path]:
    """Return the visible files below `folder`, relative to it, sorted by their POSIX path.

    Linked folders are entered, but not those that lead back to a folder they lie in.
    """
    return sorted(_walk(folder, Path(), (os.path.realpath(folder),)), key=Path.as_posix)


def other_files(folder: Path) -> list[tuple[str, str]]:
    """Return (first file, reason) for every suffix of visible files that are neither images nor videos."""
    by_suffix: dict[str, list[Path]] = {}
    for file in find_files(folder):
        if not is_image(file) and not is_video(file):
            by_suffix.setdefault(file.suffix.lower(), []).append(file)
    return [
        (
            (folder / files[0]).as_posix(),
            f"no suffix of an image: {suffix or 'none'}, {len(files)} files in all",
        )
        for suffix, files in sorted(by_suffix.items())
    ]


def list_images(folder: Path) -> list[Path]:
    """Return `find_images(folder)`.

    Raises:
        R2MError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise R2MError(f"{folder}: no such folder of images")
    images = find_images(folder)
    if not images:
        raise R2MError(f"{folder}: holds no image ({', '.join(sorted(SUFFIXES))})")
    return images


def list_media(folder: Path) -> list[Path]:
    """Return `find_media(folder)`.

    Raises:
        R2MError: the folder is missing or holds neither an image nor a video.
    """
    if not folder.is_dir():
        raise R2MError(f"{folder}: no such folder of images")
    media = find_media(folder)
    if not media:
        suffixes = f"({', '.join(sorted(SUFFIXES))}) and no video ({', '.join(sorted(VIDEO_SUFFIXES))})"
        raise R2MError(f"{folder}: holds no image {suffixes}")
    return media


def _walk(root: Path, below: Path, above: tuple[str, ...]) -> Iterator[Path]:
    with os.scandir(root / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield below / entry.name
            elif not entry.is_symlink():
                yield from _walk(root, below / entry.name, (*above, os.path.join(above[-1], entry.name)))
            elif (target := os.path.realpath(entry.path)) not in above:
                yield from _walk(root, below / entry.name, (*above, target))
