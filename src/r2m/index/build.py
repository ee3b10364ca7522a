"""Builds an index: data sets recognized, files that are shared counted once, splits, and the table."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from r2m.data.options import SplitOptions
from r2m.errors import R2MError
from r2m.index import methods, official, registry, splits, table
from r2m.index.clips import NO_TEST, TEST, Clip, Said, Skipped, Split
from r2m.index.expand import expand
from r2m.index.layout import Context, Layout
from r2m.index.layouts import celeb_df
from r2m.index.splits import Draw, Placed
from r2m.options import Family, nearest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What to index.

    Attributes:
        paths: folders, and files of indexes and tables.
        layout: name of the layout of all folders; None: recognized.
        root: folder that paths in the index are relative to, and that files of indexes lie below.
        splits: folders with official lists.
        columns: column of the index → column of the user's tables.
        families: the user's own methods.
        compressions: levels to take; empty: all.
        earlier: split of people in an earlier index, which they keep.
    """

    paths: Sequence[Path]
    layout: str | None = None
    root: Path | None = None
    splits: Sequence[Path] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, Family] = field(default_factory=dict)
    compressions: Collection[str] = ()
    seed: int = 0
    earlier: Mapping[str, Split] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """An index before it is written.

    Attributes:
        placed: the clips in their splits.
        skipped: what is left out.
        root: absolute folder that paths are relative to.
        metadata: what the index says of itself.
        other_levels: domain → levels of compression of its reals that the request leaves out.
    """

    placed: list[Placed]
    skipped: list[Skipped]
    root: str
    metadata: dict[str, Any]
    other_levels: Mapping[str, Sequence[str]]


def shares() -> dict[str, float]:
    """Return the shares of the people by which splits are drawn."""
    return SplitOptions().model_dump()


def build(request: Request) -> Built:
    """Find all clips and place them in splits; no image is opened.

    Raises:
        R2MError: a path is missing or not recognized, a layout finds a fault, one file is of two methods,
            an option of the request applies to nothing, or no image and no video is left.
    """
    tops = _tops(request)
    lists = official.find([path for path, _ in tops], request.splits)
    context = replace(_context(request), lists=(*lists.files, *_lists_of_celeb_df(request, tops)))
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    bases: list[str] = []
    for path, layout in tops:
        logger.info("%s: %s", path, layout.name)
        before = len(clips)
        for item in layout.clips(path, context):
            if isinstance(item, Skipped):
                skipped.append(item)
            else:
                clips.append(item)
        bases += _bases(path, clips[before:])
    _refuse_unmatched(request, tops, clips)
    clips, others = _of_levels(clips, request.compressions)
    skipped += [_of_other_level(clip, request.compressions) for clip in others]
    clips = _counted_once(_merged(clips))
    clips, doubles = _one_of_a_name(clips)
    placed: list[Placed] = []
    for result in splits.place(clips, lists.people, request.earlier, Draw(shares(), request.seed)):
        if isinstance(result, Placed):
            placed.append(result)
        else:
            skipped.append(result)
    skipped += doubles
    if not placed:
        raise R2MError(
            f"{', '.join(map(str, request.paths))}: no image and no video that can be used{_why(skipped)}"
        )
    root = _root(request, bases, placed)
    metadata = {
        "root": root,
        "roots": [{"path": os.path.abspath(path), "layout": layout.name} for path, layout in tops],
        "layouts": sorted({layout.name for _, layout in tops}),
        "seed": request.seed,
        "shares": shares(),
        "lists": bool(lists.people),
    }
    skipped.sort(key=lambda item: (item.reason, item.file, item.key))
    levels: dict[str, set[str]] = defaultdict(set)
    for clip in others:
        if not clip.traits.label and clip.traits.compression:
            levels[clip.traits.domain].add(clip.traits.compression)
    return Built(placed, skipped, root, metadata, {domain: sorted(levels[domain]) for domain in levels})


def write(built: Built, path: Path) -> None:
    """Write an index."""
    table.write(expand(built.placed, built.root), built.metadata, path)


def earlier_people(path: Path, seed: int) -> dict[str, Split]:
    """Return person → split by identity in an index of the same seed and shares; empty if there is none."""
    if not path.exists():
        return {}
    said = table.metadata(path)
    if (said.get("seed"), said.get("shares")) != (seed, shares()):
        return {}
    rows = table.read(path, ["identity", "identity2", "split", "split_by"])
    columns = rows.group_by(rows.column_names).aggregate([]).to_pydict()
    people: dict[str, Split] = {}
    for first, second, split, by in zip(*(columns[name] for name in rows.column_names), strict=True):
        if by == "identity":
            people.update(dict.fromkeys((person for person in (first, second) if person), split))
    return people


def _tops(request: Request) -> list[tuple[Path, Layout]]:
    """Return the data sets of all paths; one that is named twice, by links too, counts once."""
    tops: dict[str, tuple[Path, Layout]] = {}
    for path in request.paths:
        if request.layout is not None and path.is_dir():
            found = [(path, registry.get(request.layout))]
        else:
            found = registry.recognized(path)
        for top, layout in found:
            tops.setdefault(os.path.realpath(top), (Path(os.path.abspath(top)), layout))
    return list(tops.values())


def _context(request: Request) -> Context:
    folders = [Path(os.path.abspath(path if path.is_dir() else path.parent)) for path in request.paths]
    if request.root is not None and not request.root.is_dir():
        raise R2MError(f"--root {request.root}: no such folder")
    roots = [Path(os.path.abspath(request.root))] if request.root else folders
    return Context(
        own=methods.own(request.families),
        splits=tuple(request.splits),
        roots=tuple(dict.fromkeys(roots)),
        columns=request.columns,
    )


def _why(skipped: Sequence[Skipped]) -> str:
    """Return the reason why most files are left out, with the first of them, as the end of a message."""
    if not skipped:
        return ""
    files: Counter[str] = Counter()
    for item in skipped:
        files[item.reason] += item.files
    reason = max(sorted(files), key=lambda reason: files[reason])
    first = min(item.file for item in skipped if item.reason == reason)
    return f"; left out, such as {first}: {reason} ({files[reason]} in all)"


def _refuse_unmatched(request: Request, tops: Sequence[tuple[Path, Layout]], clips: Sequence[Clip]) -> None:
    """Raise R2MError where `columns`, `families` or `compressions` apply to nothing that is there."""
    if request.columns and all(layout.name != "table" for _, layout in tops):
        name, theirs = next(iter(request.columns.items()))
        raise R2MError(f"--column {name}={theirs}: expected a table, CSV or Parquet, among the PATHs")
    present = {clip.traits.method for clip in clips}
    for name, family in request.families.items():
        if methods.slug(name) not in present:
            known = nearest(methods.slug(name), sorted(present))
            raise R2MError(f"--family {name}={family}: no file is of a method {name!r}{known}")
    levels = {clip.traits.compression for clip in clips if clip.traits.compression}
    for level in request.compressions:
        if level not in levels:
            there = f"there are {', '.join(sorted(levels))}" if levels else "no path tells a level"
            raise R2MError(f"--compression {level}: no file is of this level; {there}")


def _of_levels(clips: Sequence[Clip], levels: Collection[str]) -> tuple[list[Clip], list[Clip]]:
    """Return the clips of the levels, or of none, and the others; no levels: all."""
    wanted: list[Clip] = []
    others: list[Clip] = []
    for clip in clips:
        is_wanted = not levels or clip.traits.compression in (None, *levels)
        (wanted if is_wanted else others).append(clip)
    return wanted, others


def _of_other_level(clip: Clip, levels: Collection[str]) -> Skipped:
    reason = f"of {clip.traits.compression}, left out by --compression {', '.join(levels)}"
    return Skipped(f"{clip.folder}/{min(clip.files)}", clip.traits.method, reason, len(clip.files))


def _lists_of_celeb_df(request: Request, tops: Sequence[tuple[Path, Layout]]) -> list[str]:
    """Return the absolute paths of Celeb-DF's lists in folders that the user named, if they are used."""
    if all(layout.name != "celeb_df" for _, layout in tops):
        return []
    return [os.path.abspath(folder / celeb_df.LIST) for folder in request.splits]


def _bases(path: Path, clips: Sequence[Clip]) -> list[str]:
    """Return the folders that the files of a path lie below."""
    if path.is_dir():
        return [str(path)]
    folders = {clip.folder for clip in clips}
    beside = str(path.parent)
    return [beside] if all(_is_below(folder, beside) for folder in folders) else sorted(folders)


def _root(request: Request, bases: Sequence[str], placed: Sequence[Placed]) -> str:
    root = os.path.abspath(request.root) if request.root else os.path.commonpath(bases)
    for item in placed:
        if not _is_below(item.clip.folder, root):
            raise R2MError(f"--root {root}: expected a folder above all files, such as {item.clip.folder}")
    return root


def _is_below(folder: str, root: str) -> bool:
    return folder == root or folder.startswith(f"{root.rstrip('/')}/")


def _merged(clips: Sequence[Clip]) -> list[Clip]:
    """Return the clips with those of one place, which several indexes may list, made one.

    Photographs of a folder are made one if they are of the same people, and of one split or partly the same.
    """
    merged: dict[tuple[Any, ...], list[Clip]] = {}
    for clip in clips:
        file = min(clip.files) if clip.media == "video" else ""
        persons = clip.persons if clip.video is None else ()
        place = (clip.real, clip.video, file, persons, clip.traits.label, clip.traits.method)
        same = merged.setdefault(place, [])
        first = next((each for each in same if _belong_together(each, clip)), None)
        if first is None:
            same.append(clip)
        else:
            first.files.update(clip.files)
            first.links.update(clip.links)
            first.masks.update(clip.masks)
            first.frames.update(clip.frames)
            first.said = _both(first.said, clip.said)
    return [clip for same in merged.values() for clip in same]


def _belong_together(first: Clip, second: Clip) -> bool:
    is_video = first.video is not None
    return is_video or first.said == second.said or not first.files.keys().isdisjoint(second.files)


def _both(first: Said, second: Said) -> Said:
    """Return what two lists together say of a video: who is in a test stays there."""
    if not (first and second):
        return first or second
    if "test" in first | second:
        return TEST
    single = {says for says in (first, second) if len(says) == 1}
    return next(iter(single)) if len(single) == 1 else NO_TEST


def _counted_once(clips: list[Clip]) -> list[Clip]:
    """Return the clips without files that another one holds, by links as well.

    Raises:
        R2MError: a file is of two methods, or real and fake.
    """
    folders = Counter(clip.real for clip in clips)
    targets = {os.path.dirname(target) for clip in clips for target in clip.links.values()}
    owners: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: bool(clip.links)):
        if folders[clip.real] == 1 and not clip.links and clip.real not in targets:
            continue
        kept = {}
        for file, size in clip.files.items():
            owner = owners.setdefault(clip.links.get(file, f"{clip.real}/{file}"), clip)
            if owner is clip:
                kept[file] = size
            elif owner.traits.method != clip.traits.method:
                raise R2MError(
                    f"{clip.folder}/{file}: is {clip.traits.method!r} here, and {owner.traits.method!r}"
                    f" as a file of {owner.folder}; expected one method for one file"
                )
        clip.files = kept
    return [clip for clip in clips if clip.files]


def _one_of_a_name(clips: Iterable[Clip]) -> tuple[list[Clip], list[Skipped]]:
    """Return the clips without second folders of one video, and without files of which there are frames."""
    of_key: dict[Any, list[Clip]] = defaultdict(list)
    kept: list[Clip] = []
    for clip in clips:
        if clip.video is None:
            kept.append(clip)
        else:
            of_key[clip.key].append(clip)
    skipped = []
    for several in of_key.values():
        first, *others = sorted(several, key=lambda clip: (clip.media == "video", clip.folder))
        kept.append(first)
        for clip in others:
            is_file = (first.media, clip.media) == ("image", "video")
            reason = "its frames are there" if is_file else "another video of this name is there"
            key = f"{first.folder}/{min(first.files)}" if not is_file else first.folder
            skipped.append(Skipped(f"{clip.folder}/{min(clip.files)}", key, reason, len(clip.files)))
    return kept, skipped
