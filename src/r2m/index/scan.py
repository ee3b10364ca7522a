"""What lies in folders: names and sizes of images and videos, found without opening one."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from r2m.data.listing import SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm"})
ARCHIVES = frozenset({".zip", ".rar", ".tar", ".gz", ".tgz", ".7z"})


@dataclass(slots=True)
class Listing:
    """The visible content of one folder.

    Attributes:
        path: as it was reached, absolute.
        real: the same without symbolic links.
        parts: path below the folder that the walk began at.
        images: name → bytes, sorted by name.
        videos: likewise.
        links: file that is a symbolic link → where it leads.
        others: suffix → names of files that are neither.
        broken: name → why the file or folder cannot be used.
        has_folders: whether there are folders in it.
    """

    path: str
    real: str
    parts: tuple[str, ...]
    images: dict[str, int] = field(default_factory=dict)
    videos: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    has_folders: bool = False


def walk(root: str | os.PathLike[str]) -> Iterator[Listing]:
    """Yield the folders below `root`, itself first, sorted by name.

    Hidden files are left out, `._` files among them. Linked folders are entered, but not those that lead back
    to a folder they lie in.
    """
    path = os.path.abspath(root)
    yield from _walk(path, os.path.realpath(path), (), frozenset())


def children(folder: str | os.PathLike[str]) -> Mapping[str, bool]:
    """Return the visible entries of a folder → whether it is a folder, sorted; empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            visible = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
    except OSError:
        return {}
    return dict(sorted(visible.items()))


def _walk(path: str, real: str, parts: tuple[str, ...], above: frozenset[str]) -> Iterator[Listing]:
    listing = Listing(path, real, parts)
    folders = _scan(listing)
    yield listing
    above = above | {real}
    for name in sorted(folders):
        below = os.path.realpath(f"{path}/{name}") if folders[name] else f"{real}/{name}"
        if below not in above:
            yield from _walk(f"{path}/{name}", below, (*parts, name), above)


def _scan(listing: Listing) -> dict[str, bool]:
    """Fill a listing; return its folders → whether it is a link."""
    folders: dict[str, bool] = {}
    images: list[tuple[str, int]] = []
    try:
        entries = os.scandir(listing.path)
    except OSError as error:
        listing.broken["."] = f"the folder cannot be read ({error.strerror})"
        return folders
    with entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if not (name.isascii() or _is_text(name)):
                listing.broken[name.encode(errors="replace").decode()] = "its name is no UTF-8"
            elif entry.is_dir():
                folders[name] = entry.is_symlink()
            else:
                stem, dot, suffix = name.rpartition(".")
                suffix = (dot + suffix).lower() if stem else ""
                if suffix not in SUFFIXES and suffix not in VIDEO_SUFFIXES:
                    listing.others.setdefault(suffix, []).append(name)
                    continue
                try:
                    size = entry.stat().st_size
                except OSError as error:
                    listing.broken[name] = f"the file cannot be read ({error.strerror})"
                    continue
                if suffix in SUFFIXES:
                    images.append((name, size))
                else:
                    listing.videos[name] = size
                if entry.is_symlink():
                    listing.links[name] = os.path.realpath(entry.path)
    listing.images = dict(sorted(images))
    listing.videos = dict(sorted(listing.videos.items()))
    listing.has_folders = bool(folders)
    return folders


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def listing_of(path: str) -> Listing:
    """Return the visible content of one folder."""
    listing = Listing(path, os.path.realpath(path), ())
    _scan(listing)
    return listing
