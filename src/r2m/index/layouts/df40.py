"""DF40 as it is unpacked: a folder a method, below it the domain, or the method's own reals and fakes."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from r2m.errors import R2MError
from r2m.index import methods
from r2m.index.clips import (
    NO_TEST,
    NOTHING,
    SPLIT_WORDS,
    TEST,
    Clip,
    Said,
    SaidBy,
    Skipped,
    Split,
    clips_of,
    content,
    place_of,
    real,
    stray,
)
from r2m.index.layout import Context, Layout
from r2m.index.methods import Method
from r2m.index.scan import Listing, children

TITLE = "DF40"
DOMAINS = {
    **dict.fromkeys(("ff", "ff++", "faceforensics++"), "ff"),
    **dict.fromkeys(("cdf", "cdfv2", "celeb-df", "celeb-df-v2"), "cdf"),
}
FAKES = frozenset({"fake", "fakes", "1_fake"})
REALS = frozenset({"real", "reals", "0_real"})
# In the domain `cdf`: the reals that a video was made from, not what is seen on it.
SOURCES = frozenset({"fake_from_celeb-real", "fake_from_youtube-real", "celeb-real", "youtube-real"})


def recognizes(path: Path) -> bool:
    """Tell whether a folder is a method's, or holds folders of methods."""
    if not path.is_dir():
        return False
    if methods.find(path.name) and _is_method(path, methods.find(path.name)):
        return True
    return any(
        is_folder and methods.find(name) and _is_method(path / name, methods.find(name))
        for name, is_folder in children(path).items()
    )


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield the clips of all methods below `root`, or of `root` where it is a method's folder.

    Raises:
        R2MError: an unknown method, or two folders of one method side by side.
    """
    known: dict[tuple[str, str], str] = {}
    for listing in content(root, context.lists):
        if isinstance(listing, Skipped):
            yield listing
            continue
        folders = (root.name, *listing.parts)
        start = _start(folders, context)
        if start is None:
            _refuse_unknown(folders, listing, context)
            yield from stray(listing, folders[-1], "belongs to no method of DF40")
            continue
        method = methods.get(folders[start], context.methods)
        _refuse_second(listing, start, len(folders), method, known)
        yield from _of_method(listing, folders, start, method)


def _of_method(
    listing: Listing, folders: tuple[str, ...], start: int, method: Method
) -> Iterator[Clip | Skipped]:
    place = place_of(folders[start + 1 :])
    domain, is_real, inside = _described(place.inside, method)
    if domain is None and "own" not in method.domains:
        yield from stray(listing, method.name, "no domain; expected METHOD/ff or METHOD/cdf")
        return
    said = TEST if domain != "ff" else _said(folders[:start], place.split)
    said_by: SaidBy = "official" if domain else "protocol"
    scope = domain or method.name
    reals = real(scope, TITLE, scope, said, said_by=said_by)
    traits = reals if is_real else reals.forged(method)
    yield from clips_of(listing, traits, inside, is_video=None if domain is None else True)


def _described(folders: tuple[str, ...], method: Method) -> tuple[str | None, bool, tuple[str, ...]]:
    """Return the domain, whether the files are reals, and the folders that name a video."""
    domain: str | None = None
    is_real = False
    inside: list[str] = []
    for folder in folders:
        name = folder.casefold()
        if not inside and methods.find(folder, (method,)):
            continue  # an archive that was unpacked in a folder of its name
        if not inside and domain is None and name in DOMAINS:
            domain = DOMAINS[name]
        elif not inside and name in FAKES | REALS:
            is_real = name in REALS
        elif inside or domain != "cdf" or name not in SOURCES:
            inside.append(folder)
    return domain, is_real, tuple(inside)


def _start(folders: tuple[str, ...], context: Context) -> int | None:
    """Return where in a path the method's folder is."""
    found = (index for index, folder in enumerate(folders) if methods.find(folder, context.methods))
    return next(found, None)


def _is_method(folder: Path, method: Method | None) -> bool:
    """Tell whether a folder called after a method is laid out like one of DF40."""
    assert method is not None
    below = [name for name, is_folder in children(folder).items() if is_folder]
    if any(name.casefold() in {*DOMAINS, *FAKES} for name in below):
        return True
    return any(methods.find(name, (method,)) and _is_method(folder / name, method) for name in below)


def _refuse_unknown(folders: tuple[str, ...], listing: Listing, context: Context) -> None:
    """Raise R2MError where a folder has the shape of a method's and no method's name."""
    telling = {*DOMAINS, *FAKES}
    for above, folder in pairwise(folders):
        if folder.casefold() in telling and above.casefold() not in {*telling, *SPLIT_WORDS}:
            methods.get(above, context.methods, listing.path)


def _refuse_second(
    listing: Listing, start: int, depth: int, method: Method, known: dict[tuple[str, str], str]
) -> None:
    """Raise R2MError where another folder beside the method's is called after the same method."""
    folder = listing.path
    for _ in range(depth - 1 - start):
        folder = folder.rpartition("/")[0]
    first = known.setdefault((folder.rpartition("/")[0], method.name), folder)
    if first != folder:
        raise R2MError(f"{first} and {folder}: both are folders of {method.name!r}; expected one")


def _said(above: tuple[str, ...], inside: Split | None) -> Said:
    """Return the split that folders above the method's (`train`, `DF40_test`), or below it, say."""
    split = inside
    for folder in above:
        match = re.fullmatch(r"(?:df40)?[-_ ]*([a-z]+?)(?:[-_ ]?(?:data|set))?", folder.casefold())
        split = SPLIT_WORDS.get(match[1], split) if match else split
    if split is None:
        return NOTHING
    return NO_TEST if split == "train" else frozenset({split})


LAYOUT = Layout(
    title=TITLE,
    expects="METHOD/{ff,cdf}/…/VIDEO/NNN.png, or METHOD/{real,fake}/…, METHOD one of DF40's",
    recognizes=recognizes,
    clips=clips,
    order=20,
)
