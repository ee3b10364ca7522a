"""Celeb-DF v1 and v2: three folders of videos or frames, and a list of the videos that are tested on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from r2m.errors import R2MError
from r2m.index import methods
from r2m.index.clips import (
    NO_TEST,
    NOTHING,
    TEST,
    Clip,
    Skipped,
    clips_of,
    content,
    place_of,
    real,
    stray,
)
from r2m.index.layout import Context, Layout
from r2m.index.scan import children

LIST = "List_of_testing_videos.txt"
# Videos of the list → version that it is of.
LENGTHS = {100: "v1", 518: "v2"}
# Folder → whether its videos are real.
FOLDERS = {"celeb-real": True, "youtube-real": True, "celeb-synthesis": False}


def recognizes(path: Path) -> bool:
    """Tell whether a folder holds those of Celeb-DF."""
    below = {name.casefold() for name, is_folder in children(path).items() if is_folder}
    return {"celeb-real", "celeb-synthesis"} <= below or {"celeb-real", "youtube-real"} <= below


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield all videos: those of the list are tested on, others are not.

    Raises:
        R2MError: the list cannot be read, or is at odds with the folders.
    """
    path = next((folder / LIST for folder in (root, *context.splits) if (folder / LIST).is_file()), None)
    listed = _read(path) if path else {}
    is_v1 = _is_v1(root, len(listed))
    title, domain = ("Celeb-DF-v1", "cdf_v1") if is_v1 else ("Celeb-DF-v2", "cdf")
    missing = set(listed)
    method = methods.get("celeb_synthesis", methods.OTHERS)
    for listing in content(root, (LIST, *context.lists)):
        if isinstance(listing, Skipped):
            yield listing
            continue
        top = listing.parts[0].casefold() if listing.parts else ""
        if top not in FOLDERS:
            yield from stray(listing, top or root.name, f"in none of the folders {', '.join(FOLDERS)}")
            continue
        reals = real(domain, title, "cdf")
        traits = reals if FOLDERS[top] else reals.forged(method)
        for clip in clips_of(listing, traits, place_of(listing.parts[1:]).inside, is_video=True):
            name = (top, (clip.video or "").casefold())
            missing.discard(name)
            said = (TEST if name in listed else NO_TEST) if path else NOTHING
            clip.traits, clip.said = replace(traits, said=said), said
            yield clip
    if missing:
        first = "/".join(min(missing))
        yield Skipped(str(path), first, "videos of the list that are not there", len(missing))


def _is_v1(root: Path, listed: int) -> bool:
    """Tell whether a folder is of version 1: by its name, or else the length of its list.

    A folder that is called Celeb-DF, as version 1 is unpacked, is taken for it where neither tells.
    """
    name = methods.key(root.name)
    for version in ("v1", "v2"):
        if version in name:
            return version == "v1"
    return LENGTHS.get(listed, "v1" if name == "celebdf" else "v2") == "v1"


def _read(path: Path) -> dict[tuple[str, str], bool]:
    """Return (folder, video) of the list → whether it is real: lines such as `1 YouTube-real/00170.mp4`."""
    listed: dict[tuple[str, str], bool] = {}
    for number, line in enumerate(
        path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1
    ):
        if not line.strip():
            continue
        flag, _, video = line.strip().partition(" ")
        folder, _, name = video.strip().replace("\\", "/").casefold().partition("/")
        if flag not in ("0", "1") or folder not in FOLDERS or not name:
            raise R2MError(f"{path}: line {number}: expected `1 YouTube-real/NAME.mp4`, got {line!r}")
        if FOLDERS[folder] != (flag == "1"):
            raise R2MError(
                f"{path}: line {number}: {line!r} is at odds with its folder;"
                " expected 1 for reals, 0 for fakes"
            )
        listed[folder, name.rpartition(".")[0] or name] = flag == "1"
    return listed


LAYOUT = Layout(
    title="Celeb-DF v1, v2",
    expects=f"Celeb-real, YouTube-real, Celeb-synthesis, and {LIST}",
    recognizes=recognizes,
    clips=clips,
    order=30,
)
