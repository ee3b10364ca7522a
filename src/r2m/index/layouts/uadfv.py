"""UADFV: `real` and `fake`, made with FakeApp; without a split, so that all is tested on."""

from collections.abc import Iterator
from pathlib import Path

from r2m.index import methods
from r2m.index.clips import (
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

TITLE = "UADFV"


def recognizes(path: Path) -> bool:
    """Tell whether a folder of this name holds `real` and `fake`."""
    return "uadfv" in path.name.casefold() and {"real", "fake"} <= {
        name.casefold() for name in children(path)
    }


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield all videos; `0000_fake` shows the person of `0000`."""
    method = methods.get("fakeapp", methods.OTHERS)
    for listing in content(root, context.lists):
        if isinstance(listing, Skipped):
            yield listing
            continue
        top = listing.parts[0].casefold() if listing.parts else ""
        if top not in ("real", "fake"):
            yield from stray(listing, root.name, "in neither real nor fake")
        else:
            reals = real("uadfv", TITLE, "uadfv", TEST, said_by="protocol")
            traits = reals.forged(method) if top == "fake" else reals
            for clip in clips_of(listing, traits, place_of(listing.parts[1:]).inside, is_video=True):
                if clip.video:
                    clip.persons = (f"uadfv/{clip.video.casefold().removesuffix('_fake')}",)
                yield clip


LAYOUT = Layout(
    title=TITLE,
    expects="a folder called UADFV with real/… and fake/…",
    recognizes=recognizes,
    clips=clips,
    order=25,
)
