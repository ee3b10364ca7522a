"""DeepFakeDetection by itself, as mirrors name its two folders; in FaceForensics++'s it is found there."""

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
from r2m.index.methods import FACEFORENSICS, key
from r2m.index.scan import children

TITLE = "DeepFakeDetection"
# Folder → whether its videos are real.
FOLDERS = {
    **dict.fromkeys(
        ("dfdoriginalsequences", "deepfakedetectionoriginalsequences", "dfdoriginal", "dfdreal"), True
    ),
    **dict.fromkeys(
        ("dfdmanipulatedsequences", "deepfakedetectionmanipulatedsequences", "dfdmanipulated", "dfdfake"),
        False,
    ),
}


def recognizes(path: Path) -> bool:
    """Tell whether a folder holds both, or one, of DeepFakeDetection's."""
    return any(key(name) in FOLDERS for name, is_folder in children(path).items() if is_folder)


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield all videos; there is no split, so all are tested on."""
    method = methods.get("deepfakedetection", FACEFORENSICS)
    for listing in content(root, context.lists):
        if isinstance(listing, Skipped):
            yield listing
            continue
        top = key(listing.parts[0]) if listing.parts else ""
        place = place_of(part for part in listing.parts[1:] if key(part) not in FOLDERS)
        if top not in FOLDERS:
            yield from stray(listing, root.name, "in no folder of DeepFakeDetection")
        else:
            reals = real("dfd", TITLE, "dfd", TEST, place.compression, "protocol")
            traits = reals if FOLDERS[top] else reals.forged(method)
            yield from clips_of(listing, traits, place.inside, is_video=True)


LAYOUT = Layout(
    title=TITLE,
    expects="DFD_original sequences, DFD_manipulated_sequences",
    recognizes=recognizes,
    clips=clips,
    order=25,
)
