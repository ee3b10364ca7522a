"""What a caller gives to be looked at: files, folders, and photographs in memory."""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from PIL import Image as Pillow

from r2m.data.images import bgr_of
from r2m.detection.finding import HeldImage
from r2m.detection.listing import files_of
from r2m.errors import R2MError
from r2m.models.image_detector import ImageLike

# What Pillow calls JPEGs; several in one file are MPO.
JPEGS = ("JPEG", "MPO")
EXPECTED = "expected a path, a PIL image or an RGB array (H, W, 3) of uint8"


def is_one(given: Any) -> TypeGuard[ImageLike]:
    """Whether one thing is given, and not several; an array (N, H, W, 3) is N images."""
    if isinstance(given, np.ndarray):
        return given.ndim != 4
    return _is_path(given) or isinstance(given, Pillow.Image)


def listed(given: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """Return what is given as a list.

    Raises:
        R2MError: something that is neither a path nor an image.
    """
    if is_one(given):
        items: list[ImageLike] = [given]
    elif isinstance(given, Iterable) and not isinstance(given, bytes):
        items = list(given)
    else:
        raise R2MError(f"{type(given).__name__}: {EXPECTED}, or a list of these")
    for index, item in enumerate(items):
        if isinstance(item, np.ndarray) and (item.dtype != np.uint8 or item.shape[2:] != (3,)):
            raise R2MError(f"image {index}: {item.dtype} {item.shape}; {EXPECTED}")
        if not is_one(item):
            raise R2MError(f"image {index}: {type(item).__name__}; {EXPECTED}")
    return items


def media_of(items: Sequence[ImageLike]) -> Iterable[Path | HeldImage]:
    """Return files and images in the order of `items`, of folders the files in them; images when asked for.

    Raises:
        R2MError: like `files_of`.
    """
    if all(map(_is_path, items)):
        return files_of([Path(item) for item in items if _is_path(item)]) if items else []
    files = {index: files_of([Path(item)]) for index, item in enumerate(items) if _is_path(item)}
    return _in_order(items, files)


def _in_order(items: Sequence[ImageLike], files: dict[int, list[Path]]) -> Iterator[Path | HeldImage]:
    for index, item in enumerate(items):
        if isinstance(item, Pillow.Image | np.ndarray):
            yield held(item, index)
        else:
            yield from files[index]


def held(image: Pillow.Image | np.ndarray, index: int) -> HeldImage:
    """Return a photograph in memory, upright, or why it is none, like one from a file."""
    path = Path(f"image {index}")
    try:
        opened = Pillow.fromarray(image) if isinstance(image, np.ndarray) else image
        return HeldImage(path, bgr_of(opened), opened.format in JPEGS)
    except (ValueError, OSError) as error:
        return HeldImage(path, reason=str(error))


def _is_path(item: Any) -> TypeGuard[str | Path]:
    return isinstance(item, str | PathLike)
