"""Index files of DeepfakeBench: `NAME.json` with the frames of every video, by label and split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from r2m.data.naming import CONTAINERS
from r2m.errors import R2MError
from r2m.index import methods
from r2m.index.clips import (
    COMPRESSIONS,
    NO_TEST,
    SPLIT_WORDS,
    TEST,
    Clip,
    Said,
    Skipped,
    Split,
    Traits,
    clips_of,
    place_of,
    real,
)
from r2m.index.json_file import read_json
from r2m.index.layout import Context, Layout
from r2m.index.locate import Locator
from r2m.index.methods import DF40, FACEFORENSICS, OTHERS, Method, key
from r2m.index.scan import Listing

SHAPE = "{NAME: {LABEL: {train | val | test: {VIDEO: {label, frames}}}}}"

# Folder of a path → domain, data set.
DATA_SETS = {
    "faceforensics": ("ff", "FaceForensics++"),
    "celebdfv2": ("cdf", "Celeb-DF-v2"),
    "celebdf": ("cdf", "Celeb-DF-v2"),
    "celebdfv1": ("cdf_v1", "Celeb-DF-v1"),
    "dfdc": ("dfdc", "DFDC"),
    "dfdcp": ("dfdcp", "DFDCP"),
    "uadfv": ("uadfv", "UADFV"),
    "deeperforensics10": ("deeperforensics", "DeeperForensics-1.0"),
}
# Label of reals without its suffix → domain, data set.
REALS = {
    "ff": DATA_SETS["faceforensics"],
    "dfd": ("dfd", "DeepFakeDetection"),
    "celebdfv1": DATA_SETS["celebdfv1"],
    "celebdfv2": DATA_SETS["celebdfv2"],
    "dfdc": DATA_SETS["dfdc"],
    "dfdcp": DATA_SETS["dfdcp"],
    "uadfv": DATA_SETS["uadfv"],
}
# Method → domain and data set of its fakes, where the method tells.
OF_METHOD = {
    "deepfakedetection": REALS["dfd"],
    "dfdc_fake": DATA_SETS["dfdc"],
    "dfdcp_a": DATA_SETS["dfdcp"],
    "dfdcp_b": DATA_SETS["dfdcp"],
    "fakeapp": DATA_SETS["uadfv"],
    **{method.name: DATA_SETS["faceforensics"] for method in FACEFORENSICS[:-1]},
}
AGGREGATES = frozenset({"fsall", "frall", "efsall", "feall", "df40", "df40all", "df40train", "df40test"})
DF40_NAMES = frozenset({"df40", "df40train", "df40test"})


class Leaf(NamedTuple):
    """One video of the file: its key in it, name, label, compression, and frames and masks as listed."""

    where: str
    video: str
    label: str
    compression: str | None
    frames: list[str]
    masks: list[str]


@dataclass
class Entry:
    """A video in all splits that list it."""

    leaf: Leaf
    splits: set[Split] = field(default_factory=set)


def recognizes(path: Path) -> bool:
    """Tell whether a path is a JSON file."""
    return path.is_file() and path.suffix.casefold() == ".json"


def clips(path: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield the videos of an index file; one that stands in `test` and in other splits is tested on only.

    Raises:
        R2MError: the file is no index, names an unknown label or method, or none of its files is there.
    """
    name, entries = _read(path)
    locator = Locator(context.roots, context.methods)
    has_val = any(entry.splits == {"val"} for entry in entries.values())
    files = kept = 0
    first = ""
    for entry in entries.values():
        leaf = entry.leaf
        files += len(leaf.frames)
        if not leaf.frames:
            yield Skipped(str(path), leaf.where, "a video without frames", 0)
            continue
        traits = _traits(path, name, leaf, _said(entry.splits, has_val), context)
        for clip, missing in _located(leaf, traits, locator):
            if clip is not None:
                kept += len(clip.files)
                yield clip
            if missing:
                first = first or missing[0]
                reason = "listed, and not there"
                yield Skipped(missing[0], f"{path.name}: {leaf.where}", reason, len(missing))
    if files and not kept:
        where = ", ".join(map(str, context.roots))
        raise R2MError(
            f"{path}: none of its {files} files is there, such as {first!r}; looked below {where};"
            " expected --root DIR, the folder that the paths begin in"
        )


def _said(splits: set[Split], has_val: bool) -> Said:
    """Return a video's split; a `val` that is but a copy of `train` or `test` tells nothing."""
    if "test" in splits:
        return TEST
    return frozenset(splits) if has_val and len(splits) == 1 else NO_TEST


def _read(path: Path) -> tuple[str, dict[tuple[str, str, str], Entry]]:
    """Return the name of the data set, and its videos by label, compression and first folder."""
    content = read_json(path)
    if not isinstance(content, dict) or not content or not all(isinstance(v, dict) for v in content.values()):
        raise R2MError(f"{path}: no index of DeepfakeBench; expected {SHAPE}, got {type(content).__name__}")
    entries: dict[tuple[str, str, str], Entry] = {}
    for name, labels in content.items():
        for label, splits in labels.items():
            if not (
                isinstance(splits, dict) and splits and SPLIT_WORDS.keys() >= {*map(str.casefold, splits)}
            ):
                raise R2MError(f"{path}: {name}.{label}: no index of DeepfakeBench; expected {SHAPE}")
            for split, videos in splits.items():
                for leaf in _leaves(path, f"{name}.{label}.{split}", label, videos):
                    folder = leaf.frames[0] if leaf.frames else ""
                    identity = (leaf.label, f"{leaf.compression}/{leaf.video}", folder)
                    entry = entries.setdefault(identity, Entry(leaf))
                    entry.splits.add(SPLIT_WORDS[split.casefold()])
    return next(iter(content)), entries


def _leaves(path: Path, where: str, label: str, videos: Any, level: str | None = None) -> Iterator[Leaf]:
    if videos in ({}, []):
        return
    if not isinstance(videos, dict):
        raise R2MError(f"{path}: {where}: expected an object of videos, got {type(videos).__name__}")
    if "frames" in videos and isinstance(videos["frames"], list):  # DFDC's `val` is one video
        yield _leaf(path, where, label, "", videos, level)
        return
    for name, entry in videos.items():
        key_of = f"{where}.{name}"
        if isinstance(entry, dict) and isinstance(entry.get("frames"), list):
            yield _leaf(path, key_of, label, name, entry, level)
        elif name in COMPRESSIONS:
            yield from _leaves(path, key_of, label, entry, COMPRESSIONS[name])
        else:
            raise R2MError(f"{path}: {key_of}: expected {{label, frames}}; an index has the form {SHAPE}")


def _leaf(
    path: Path, where: str, label: str, video: str, entry: Mapping[str, Any], level: str | None
) -> Leaf:
    paths = {}
    for key_of in ("frames", "masks"):
        listed = entry.get(key_of) or []
        if not isinstance(listed, list) or not all(isinstance(file, str) for file in listed):
            raise R2MError(f"{path}: {where}.{key_of}: expected a list of paths")
        paths[key_of] = [file.replace("\\", "/") for file in listed]
    own = entry.get("label", label)
    if not isinstance(own, str):
        raise R2MError(f"{path}: {where}.label: expected the name of a label, got {own!r}")
    if _is_real(own) != _is_real(label):
        raise R2MError(f"{path}: {where}.label: {own!r} is at odds with {label!r}, which it stands under")
    return Leaf(where, video, own, level, paths["frames"], paths["masks"])


def _is_real(label: str) -> bool:
    """Tell whether a label is one of reals, by its suffix: `whichisreal_Fake` is not."""
    return label.casefold().endswith(("_real", "-real")) or label.casefold() == "real"


def _traits(path: Path, name: str, leaf: Leaf, said: Said, context: Context) -> Traits:
    parts = leaf.frames[0].split("/")
    level = leaf.compression or place_of(parts[:-1]).compression
    stem = _stem(leaf.label)
    domain, title = _domain(parts, name)
    if _is_real(leaf.label):
        if domain is None:
            domain, title = REALS.get(key(stem), (None, title))
        if domain is None:
            method = _method_of_path(parts, context) or methods.find(stem, context.methods)
            own = method.name if method else methods.name_of(name)
            domain = _suffix_domain(name) or own
        return real(domain, title, _scope(domain), said, compression=level)
    method = _method(path, leaf, stem, parts, context)
    if method.name in OF_METHOD:
        domain, title = OF_METHOD[method.name]
    elif method.name == "celeb_synthesis":
        domain, title = DATA_SETS["celebdfv1" if "v1" in leaf.label.casefold() else "celebdfv2"]
    elif method in DF40:
        domain, title = domain or _suffix_domain(name) or method.name, "DF40"
    else:
        domain = domain or _suffix_domain(name) or methods.name_of(name)
    return real(domain, title, _scope(domain), said, compression=level).forged(method)


def _scope(domain: str) -> str:
    return "cdf" if domain == "cdf_v1" else domain


def _domain(parts: list[str], name: str) -> tuple[str | None, str]:
    """Return the domain and the data set that a path tells; the data set is called after the file else."""
    keys = [key(part) for part in parts[:-1]]
    if "actors" in keys:
        return REALS["dfd"]
    if known := next((DATA_SETS[part] for part in keys if part in DATA_SETS), None):
        return known
    domain = "ff" if "ff" in keys else "cdf" if {"cdf", "cdfv2"} & set(keys) else None
    return domain, "DF40" if domain or DF40_NAMES & set(keys) else name


def _suffix_domain(name: str) -> str | None:
    suffix = name.casefold().rpartition("_")[2]
    return suffix if suffix in ("ff", "cdf") else None


def _stem(label: str) -> str:
    """Return a label without the suffix that says its class: `simswap_Fake`, `FF-real`."""
    head, _, tail = label.replace("-", "_").rpartition("_")
    return head if head and tail.casefold() in ("real", "fake") else label


def _method(path: Path, leaf: Leaf, stem: str, parts: list[str], context: Context) -> Method:
    """Return the method of fakes, by the label, or by the path where the label is of several methods."""
    known = (*context.methods, *FACEFORENSICS, *OTHERS)
    if leaf.label.casefold().startswith("ff-"):
        return methods.get(leaf.label, FACEFORENSICS, f"{path}: {leaf.where}")
    for name in (leaf.label, stem):  # the labels of some methods end in their suffix: `DFDC_Fake`
        if key(name) not in AGGREGATES and (method := methods.find(name, known)):
            return method
    if key(stem) in AGGREGATES or stem.casefold() == "fake":
        if method := _method_of_path(parts, context):
            return method
        raise R2MError(f"{path}: {leaf.where}: no folder of {leaf.frames[0]!r} is called after a method")
    return methods.get(stem, known, f"{path}: {leaf.where}")


def _method_of_path(parts: list[str], context: Context) -> Method | None:
    below = ["faceforensics" in key(part) for part in parts[:-1]]
    if any(below):
        return next((m for part in parts[:-1] if (m := methods.find(part, FACEFORENSICS))), None)
    return next((m for part in parts[:-1] if (m := methods.find(part, context.methods))), None)


def _located(leaf: Leaf, traits: Traits, locator: Locator) -> Iterator[tuple[Clip | None, list[str]]]:
    """Yield the clips of a video, one a folder, and the files of each that are not there."""
    by_folder: dict[str, list[str]] = {}
    for frame in leaf.frames:
        folder, _, file = frame.rpartition("/")
        by_folder.setdefault(folder, []).append(file)
    for folder, files in by_folder.items():
        listing = locator.folder(folder)
        named = [(file, locator.file(listing, file) if listing else None) for file in files]
        there = sorted({name for _, name in named if name is not None})
        missing = [f"{folder}/{file}" for file, name in named if name is None]
        if listing is None or not there:
            yield None, missing
            continue
        chosen = Listing(listing.path, listing.real, (), links=listing.links)
        chosen.images = {file: listing.images[file] for file in there if file in listing.images}
        chosen.videos = {file: listing.videos[file] for file in there if file in listing.videos}
        found = list(clips_of(chosen, traits, _inside(leaf, folder, there), is_video=True))
        for position, clip in enumerate(found):
            clip.masks = _masks(leaf, clip, locator)
            yield clip, missing if not position else []


def _inside(leaf: Leaf, folder: str, files: list[str]) -> tuple[str, ...]:
    """Return the name of the video; empty for a photograph, which stands alone under its own name."""
    name = PurePosixPath(folder).name
    if len(files) == 1 and key(PurePosixPath(files[0]).stem) == key(leaf.video):
        return ()
    if name.casefold() in CONTAINERS | {"real", "fake"}:
        return (leaf.video,) if leaf.video and len(files) > 1 else ()
    return (name,)


def _masks(leaf: Leaf, clip: Clip, locator: Locator) -> dict[str, str]:
    by_stem: dict[str, str] = {}
    for mask in leaf.masks:
        folder, _, file = mask.rpartition("/")
        listing = locator.folder(folder)
        if listing is not None and file in listing.images:
            by_stem[PurePosixPath(file).stem] = f"{listing.path}/{file}"
    stems = {file: PurePosixPath(file).stem for file in clip.files} if by_stem else {}
    return {file: by_stem[stem] for file, stem in stems.items() if stem in by_stem}


LAYOUT = Layout(
    title="DeepfakeBench's index",
    expects=f"NAME.json: {SHAPE}",
    recognizes=recognizes,
    clips=clips,
    order=5,
)
