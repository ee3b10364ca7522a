"""Where the files of another's index lie here: prefixes, case, and folders that DF40 names otherwise."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from r2m.index import methods
from r2m.index.methods import FACEFORENSICS, Method, key
from r2m.index.scan import Listing, children, listing_of

# Folder of an index → other names of it on disk.
OTHER_NAMES = {
    "celeb-real": ("fake_from_celeb-real",),
    "youtube-real": ("fake_from_youtube-real",),
    "cdfv2": ("cdf",),
    "cdf": ("cdfv2",),
}
# Folders that may stand between two of an index.
BETWEEN = ("train", "test", "df40", "frames")


# Folders that tell data from other data: they may be missing only where the root stands below them.
TELLING = frozenset(
    {"ff", "cdf", "cdfv2", "real", "fake", "celebdfv1", "celebdfv2"}
    | {"originalsequences", "manipulatedsequences", "youtube", "actors", "c0", "raw", "c23", "c40"}
    | {"celebreal", "youtubereal", "celebsynthesis"}
)


class Locator:
    """Finds folders of an index below some roots; every folder on disk is listed once."""

    def __init__(
        self, roots: Sequence[Path], known: tuple[Method, ...], common: tuple[str, ...] | None = None
    ) -> None:
        """`common`: folders that all paths begin with, of which some may be missing; names are exact then."""
        self._roots = [os.path.abspath(root) for root in roots]
        self._known = (*known, *FACEFORENSICS)
        self._common = common
        self._names: dict[str, dict[str, str]] = {}
        self._files: dict[str, dict[str, str]] = {}
        self._listings: dict[str, Listing] = {}
        self._folders: dict[str, Listing | None] = {}

    def folder(self, path: str) -> Listing | None:
        """Return the content of the folder that an index calls `path` (POSIX); None if there is none.

        What its path begins with may be missing here, or be another machine's. A folder's name may differ in
        case, be the other name of a method, or stand in a folder of its own name.
        """
        if path not in self._folders:
            candidates = (self._listing(folder) for folder in self._candidates(path))
            full = (listing for listing in candidates if listing.images or listing.videos)
            self._folders[path] = next(full, None)
        return self._folders[path]

    def file(self, listing: Listing, name: str) -> str | None:
        """Return the image or video of a folder that an index calls `name`, whose case may differ."""
        if name in listing.images or name in listing.videos:
            return name
        if listing.path not in self._files:
            names = (*listing.images, *listing.videos)
            self._files[listing.path] = {file.casefold(): file for file in names}
        return self._files[listing.path].get(name.casefold())

    def _listing(self, folder: str) -> Listing:
        if folder not in self._listings:
            self._listings[folder] = listing_of(folder)
        return self._listings[folder]

    def _candidates(self, path: str) -> Iterator[str]:
        """Yield the folders that a path may mean, the likeliest first."""
        if path.startswith("/") and os.path.isdir(path):
            yield path.rstrip("/")
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        most = len(parts) - 1 if self._common is None else len(self._common)
        for skipped in range(max(0, most) + 1):
            for root in self._roots:
                above = {key(part) for part in root.split("/")}
                if all(key(part) in above for part in parts[:skipped] if self._tells(part)):
                    yield from self._below(root, parts[skipped:])

    def _tells(self, part: str) -> bool:
        return key(part) in TELLING or methods.find(part, self._known) is not None

    def _below(self, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
        """Yield the folders below `folder` that `parts` may mean, the likeliest first."""
        if not parts:
            yield folder
            return
        names = self._children(folder)
        if self._common is not None:
            name = names.get(parts[0]) or names.get(parts[0].casefold())
            yield from self._below(f"{folder}/{name}", parts[1:]) if name else ()
            return
        for name in self._meant(parts[0], names):
            yield from self._below(f"{folder}/{name}", parts[1:])
            yield from self._repeated(f"{folder}/{name}", parts)
        for between in BETWEEN:
            if between in names and between != parts[0].casefold():
                within = f"{folder}/{names[between]}"
                for name in self._meant(parts[0], self._children(within)):
                    yield from self._below(f"{within}/{name}", parts[1:])
                    yield from self._repeated(f"{within}/{name}", parts)

    def _repeated(self, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
        """Yield what `parts` may mean if an archive was unpacked in a folder of its name."""
        for name in self._meant(parts[0], self._children(folder)):
            yield from self._below(f"{folder}/{name}", parts[1:])

    def _meant(self, part: str, names: Mapping[str, str]) -> Iterator[str]:
        """Yield the folders of `names` that are called like `part`, the likeliest first."""
        word = part.casefold()
        meant = [names[other] for other in (part, word, *OTHER_NAMES.get(word, ())) if other in names]
        method = methods.find(part, self._known)
        if method is not None:
            meant += [name for name in names.values() if methods.find(name, self._known) is method]
        yield from dict.fromkeys(meant)

    def _children(self, folder: str) -> Mapping[str, str]:
        """Return the folders in a folder, by their names and by those without case."""
        if folder not in self._names:
            names = [name for name, is_folder in children(folder).items() if is_folder]
            without_case = {name.casefold(): name for name in names}
            self._names[folder] = without_case | dict(zip(names, names, strict=True))
        return self._names[folder]
