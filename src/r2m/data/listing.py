"""Which files of a folder are images."""

from pathlib import Path

from r2m.errors import R2MError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})


def find_images(folder: Path) -> list[Path]:
    """Return the visible image files below `folder`, relative to it, sorted by their POSIX path."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    visible = (path for path in found if not any(part.startswith(".") for part in path.parts))
    return sorted(visible, key=Path.as_posix)


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
