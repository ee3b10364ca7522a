"""DFDC's preview (DFDCP): `original_videos`, `method_A` and `method_B`, and `dataset.json`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from r2m.errors import R2MError
from r2m.index import methods
from r2m.index.clips import (
    NO_TEST,
    TEST,
    Clip,
    Said,
    Skipped,
    clips_of,
    content,
    place_of,
    real,
    stray,
)
from r2m.index.json_file import read_object
from r2m.index.layout import Context, Layout
from r2m.index.scan import children

TITLE = "DFDCP"
LIST = "dataset.json"
SAID: Mapping[str, Said] = {"train": NO_TEST, "test": TEST, "val": frozenset({"val"})}


def recognizes(path: Path) -> bool:
    """Tell whether a folder holds the preview's list and one of its folders."""
    below = children(path)
    return LIST in below and any(
        name.casefold().startswith(("method_", "original_videos")) for name in below if below[name]
    )


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield the videos of the list; what it calls training is not tested on.

    Raises:
        R2MError: the list cannot be read.
    """
    entries = _read(root / LIST)
    missing = set(entries)
    for listing in content(root, (LIST, *context.lists)):
        if isinstance(listing, Skipped):
            yield listing
            continue
        if not listing.parts:
            yield from stray(listing, root.name, "in no folder of a method")
            continue
        top = listing.parts[0].casefold()
        inside = place_of(listing.parts[1:]).inside
        for clip in clips_of(listing, real("dfdcp", TITLE, "dfdcp"), inside, is_video=True):
            name = (clip.video or "").rpartition("/")[2]
            entry = entries.get((top, name.casefold()))
            if entry is None:
                reason = f"not in {LIST}; expected its label and set there"
                yield Skipped(f"{listing.path}/{min(clip.files)}", f"{top}/{name}", reason, len(clip.files))
                continue
            missing.discard((top, name.casefold()))
            said = SAID[entry["set"]]
            clip.traits = real("dfdcp", TITLE, "dfdcp", said)
            if entry["label"] == "fake":
                clip.traits = clip.traits.forged(methods.get(top, methods.OTHERS, f"{listing.path}"))
            clip.said, clip.persons, clip.video = said, _people(entry, name), name
            yield clip
    if missing:
        reason = "videos of the list that are not there"
        yield Skipped(str(root / LIST), "/".join(min(missing)), reason, len(missing))


def _people(entry: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the people by the list, or else by the number that a video's name begins with."""
    listed = [str(entry[key]) for key in ("target_id", "swapped_id") if entry.get(key) not in (None, "")]
    names = listed or [name.partition("_")[0]]
    return tuple(f"dfdcp/{person}" for person in dict.fromkeys(names))


def _read(path: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return (first folder, video) → its entry."""
    entries: dict[tuple[str, str], Mapping[str, Any]] = {}
    for file, entry in read_object(path).items():
        if not isinstance(entry, dict) or entry.get("label") not in ("real", "fake"):
            raise R2MError(f"{path}: {file}.label: expected real or fake")
        if entry.get("set") not in SAID:
            raise R2MError(f"{path}: {file}.set: expected train, val or test, got {entry.get('set')!r}")
        folder = file.replace("\\", "/").partition("/")[0].casefold()
        entries[folder, Path(file.replace("\\", "/")).stem.casefold()] = entry
    return entries


LAYOUT = Layout(
    title="DFDC preview",
    expects=f"{LIST}, original_videos/…, method_A/…, method_B/…",
    recognizes=recognizes,
    clips=clips,
    order=25,
)
