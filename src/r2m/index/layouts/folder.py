"""A plain folder: `real/…` and `fake/METHOD/…`, below `train`, `val` and `test` or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from r2m.data.naming import ImageClass, class_of_part
from r2m.errors import R2MError
from r2m.index import methods
from r2m.index.clips import (
    NO_TEST,
    NOTHING,
    SPLIT_WORDS,
    Clip,
    Place,
    Said,
    Skipped,
    clips_of,
    content,
    place_of,
    real,
    stray,
)
from r2m.index.layout import Context, Layout
from r2m.index.methods import FACEFORENSICS, OTHERS, Method
from r2m.index.scan import Listing, children
from r2m.options import Family


def recognizes(path: Path) -> bool:
    """Tell whether a folder, or one of its split folders, holds a folder of reals and one of fakes."""
    below = [name for name, is_folder in children(path).items() if is_folder]
    folders = [path, *(path / name for name in below if name.casefold() in SPLIT_WORDS)]
    return any({"real", "fake"} <= _classes(folder) for folder in folders)


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield the clips of both classes; without split folders nothing is said of splits.

    Raises:
        R2MError: fakes of no method, or of an unknown one without a family.
    """
    listings = list(content(root, context.lists))
    splits = {place_of(item.parts).split for item in listings if not isinstance(item, Skipped)}
    domain = methods.name_of(root.name)
    for listing in listings:
        if isinstance(listing, Skipped):
            yield listing
            continue
        at, image_class = _class_of(listing.parts)
        place = place_of(listing.parts[at + 1 :])
        if image_class is None:
            reason = "in no folder of reals or fakes; expected real/ or fake/METHOD/"
            yield from stray(listing, root.name, reason)
            continue
        said = _said(place_of(listing.parts), has_val="val" in splits)
        traits, inside = real(domain, root.name, domain, said), place.inside
        if image_class == "fake":
            method, inside = _method(listing, inside, context)
            traits = traits.forged(method)
        yield from clips_of(listing, traits, inside)


def _classes(folder: Path) -> set[ImageClass | None]:
    return {class_of_part(name) for name, is_folder in children(folder).items() if is_folder}


def _class_of(parts: tuple[str, ...]) -> tuple[int, ImageClass | None]:
    """Return which of the folders says the class, and the class."""
    for index, part in enumerate(parts):
        if part.casefold() not in SPLIT_WORDS:
            return index, class_of_part(part)
    return len(parts), None


def _method(listing: Listing, inside: tuple[str, ...], context: Context) -> tuple[Method, tuple[str, ...]]:
    """Return the method of fakes in `fake/METHOD/…` or `fake/FAMILY/METHOD/…`, and what names the video."""
    families = [family for family in get_args(Family) if inside and family == inside[0]]
    rest = inside[len(families) :]
    if not rest:
        raise R2MError(f"{listing.path}: of which method are these fakes? expected fake/METHOD/…")
    known = (*context.methods, *FACEFORENSICS, *OTHERS)
    method = methods.find(rest[0], known)
    if method is None and families:
        method = methods.own({rest[0]: families[0]})[0]
    return method or methods.get(rest[0], known, listing.path), rest[1:]


def _said(place: Place, has_val: bool) -> Said:
    if place.split is None:
        return NOTHING
    return NO_TEST if place.split == "train" and not has_val else frozenset({place.split})


LAYOUT = Layout(
    title="a plain folder",
    expects="real/… and fake/METHOD/…",
    recognizes=recognizes,
    clips=clips,
    order=60,
)
