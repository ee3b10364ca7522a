"""Clips: the files of one video, or of one folder of photographs, with all that their place says of them."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from r2m.data.naming import CONTAINERS, DFD, FLAT, FRAME, MASKS, people_of
from r2m.index.methods import Method
from r2m.index.scan import ARCHIVES, Listing, walk
from r2m.index.table import REAL
from r2m.options import Family

Split = Literal["train", "val", "test"]
SaidBy = Literal["official", "protocol"]
Media = Literal["image", "video"]

# What a data set may say of a video: its split, or that it is one of several; the empty set says nothing.
Said = frozenset[Split]
NOTHING: Said = frozenset()
TEST: Said = frozenset({"test"})
NO_TEST: Said = frozenset({"train", "val"})

# Folders by which a data set tells its splits apart.
SPLIT_WORDS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
COMPRESSIONS = {"raw": "c0", "c0": "c0", "c23": "c23", "c40": "c40"}
_GREATEST_FRAME = 2**31 - 1
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True)
class Traits:
    """What the clips of a part of a data set have in common.

    Attributes:
        people: prefix of the names of people, so that data sets of the same people share them.
        said: what the data set says of the split.
        said_by: an official split, or a protocol by which data without one are only tested on.
    """

    method: str
    family: Family | Literal["real"]
    domain: str
    dataset: str
    people: str
    said: Said = NOTHING
    compression: str | None = None
    said_by: SaidBy = "official"

    @property
    def label(self) -> int:
        """0 real, 1 fake."""
        return int(self.method != REAL)

    def forged(self, method: Method) -> "Traits":
        """Return the traits of a method's fakes that are otherwise alike."""
        return replace(self, method=method.name, family=method.family)


def real(
    domain: str,
    dataset: str,
    people: str,
    said: Said = NOTHING,
    compression: str | None = None,
    said_by: SaidBy = "official",
) -> Traits:
    """Return the traits of reals."""
    return Traits(REAL, "real", domain, dataset, people, said, compression, said_by)


@dataclass(slots=True)
class Clip:
    """Files of one folder that are of one video, or photographs.

    Attributes:
        folder: absolute path as it was reached.
        real: the same without symbolic links.
        files: name → bytes.
        video: its name; None for photographs.
        persons: those who are seen, at most two, the one who was filmed first; empty where nothing tells.
        links: files that are symbolic links → where they lead.
        masks: file → absolute path of its mask image.
        frames: file → number of the frame, where it is not the last number of the file's name.
    """

    traits: Traits
    folder: str
    real: str
    files: dict[str, int]
    video: str | None
    persons: tuple[str, ...]
    media: Media = "image"
    said: Said = NOTHING
    links: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, str, str, str]:
        """Domain, label, method, video and compression: what tells a video from others."""
        traits = self.traits
        return traits.domain, traits.label, traits.method, self.video or "", traits.compression or ""


@dataclass(frozen=True)
class Skipped:
    """Files that are not in the index: the first of them, a key that says which they are, and why."""

    file: str
    key: str
    reason: str
    files: int = 1


@dataclass(frozen=True)
class Place:
    """What the folders of a path say.

    Attributes:
        inside: those that may name a video or a person.
        split: of the last folder that is called after one.
        compression: c0, c23 or c40.
        is_mask: whether the images are masks of others.
    """

    inside: tuple[str, ...]
    split: Split | None
    compression: str | None
    is_mask: bool


def place_of(folders: Iterable[str]) -> Place:
    """Return what the names of folders say; case does not count."""
    inside: list[str] = []
    split: Split | None = None
    compression: str | None = None
    is_mask = False
    for folder in folders:
        name = folder.casefold()
        if name in COMPRESSIONS:
            compression = COMPRESSIONS[name]
        elif name in SPLIT_WORDS:
            split = SPLIT_WORDS[name]
        elif name in MASKS:
            is_mask = True
        elif name not in CONTAINERS:
            inside.append(folder)
    return Place(tuple(inside), split, compression, is_mask)


def clips_of(
    listing: Listing,
    traits: Traits,
    inside: tuple[str, ...] = (),
    *,
    is_video: bool | None = None,
    persons: tuple[str, ...] | None = None,
) -> Iterator[Clip]:
    """Yield the clips in a folder; the path `inside` names its video.

    Images of a folder that nothing is called after are photographs, but for those with a number after the
    name of a video. `is_video` None: a folder is one if most of its images are numbered. A video file is a
    video of its own. `persons` None: the name of the video tells them.
    """
    said = traits.said
    if listing.images and inside and (is_video or (is_video is None and _is_numbered(listing.images))):
        name = "/".join(inside)
        seen = people(traits, inside[-1]) if persons is None else persons
        links = _links(listing, listing.images)
        yield Clip(traits, listing.path, listing.real, listing.images, name, seen, said=said, links=links)
    elif listing.images:
        yield from _photographs(listing, traits, inside, persons)
    for file, size in listing.videos.items():
        stem = file.rpartition(".")[0]
        name = "/".join((*inside, stem))
        seen = people(traits, stem) if persons is None else persons
        links = _links(listing, (file,))
        yield Clip(traits, listing.path, listing.real, {file: size}, name, seen, "video", said, links)


def people(traits: Traits, video: str) -> tuple[str, ...]:
    """Return the people whom the name of a video tells, in the scope of their data set."""
    names = _names(traits.people, video, traits.label)
    return tuple(f"{traits.people}/{name}" for name in names)


def frame_of(stem: str) -> int | None:
    """Return the last number of a file's name; None if there is none that int32 holds."""
    match = _LAST_NUMBER.search(stem)
    number = int(match[1]) if match and len(match[1]) <= 10 else None
    return number if number is not None and number <= _GREATEST_FRAME else None


def content(root: Path, lists: Collection[str] = ()) -> Iterator[Listing | Skipped]:
    """Yield the folders below `root` that hold images or videos, and what of them can be used in no layout.

    That is other files, but for `lists`, by name or absolute path, broken ones, masks, and empty folders.
    """
    for listing in walk(root):
        yield from _unused(listing, lists)
        if place_of(listing.parts).is_mask:
            yield from stray(listing, "masks", "masks of other images")
        elif listing.images or listing.videos:
            yield listing
        elif not (listing.has_folders or listing.others or listing.broken):
            yield Skipped(listing.path, "empty", "an empty folder; expected images or videos", 0)


def stray(listing: Listing, key: str, reason: str) -> Iterator[Skipped]:
    """Yield the images and videos of a folder as files that cannot be used, if there are any."""
    files = (*listing.images, *listing.videos)
    if files:
        yield Skipped(f"{listing.path}/{min(files)}", key, reason, len(files))


def _unused(listing: Listing, lists: Collection[str]) -> Iterator[Skipped]:
    for suffix, names in listing.others.items():
        files = [name for name in names if name not in lists and f"{listing.path}/{name}" not in lists]
        if files:
            reason = "an archive: unpack it" if suffix in ARCHIVES else "neither image nor video"
            yield Skipped(f"{listing.path}/{min(files)}", suffix or "no suffix", reason, len(files))
    for name, reason in listing.broken.items():
        yield Skipped(f"{listing.path}/{name}", name, reason)


def _names(scope: str, video: str, label: int) -> tuple[str, ...]:
    """Return the names of a video's people; those of `ff`, `cdf` and `dfd` have a form of their own."""
    if scope == "ff":
        names = re.findall(r"(?<!\d)\d{3}(?!\d)", video)[:2]
        return tuple(dict.fromkeys(names)) if video[:1].isdigit() and names else (video,)
    if scope == "cdf":
        names = re.findall(r"id\d+", video)[:2]
        return tuple(dict.fromkeys(names)) or (video,)
    if scope == "dfd":
        match = DFD.fullmatch(video)
        pair = (match["target"], match["source"]) if match else (video,)
        return tuple(dict.fromkeys(name for name in pair if name))
    return people_of(video, "fake" if label else "real")[0]


def _is_numbered(images: Mapping[str, int]) -> bool:
    numbered = sum(FRAME.fullmatch(name.rpartition(".")[0]) is not None for name in images)
    return 2 * numbered > len(images)


def _photographs(
    listing: Listing, traits: Traits, inside: tuple[str, ...], persons: tuple[str, ...] | None
) -> Iterator[Clip]:
    """Yield the videos that frames of a flat folder are called after, then its photographs."""
    videos: dict[str | None, dict[str, int]] = {}
    for file, size in listing.images.items():
        match = FLAT.fullmatch(file.rpartition(".")[0])
        videos.setdefault(match["video"] if match else None, {})[file] = size
    for video, files in videos.items():
        if video is not None:
            name = "/".join((*inside, video))
            seen = people(traits, video) if persons is None else persons
        else:
            name = None
            seen = (f"{traits.people}/{'/'.join(inside)}",) if inside and persons is None else persons or ()
        links = _links(listing, files)
        yield Clip(traits, listing.path, listing.real, files, name, seen, said=traits.said, links=links)


def _links(listing: Listing, files: Iterable[str]) -> dict[str, str]:
    return {file: listing.links[file] for file in files if file in listing.links} if listing.links else {}
