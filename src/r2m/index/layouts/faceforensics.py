"""FaceForensics++ and DeepFakeDetection as they are downloaded, as videos or frames, and parts of them."""

from collections.abc import Iterator
from pathlib import Path

from r2m.index import methods
from r2m.index.clips import (
    COMPRESSIONS,
    NOTHING,
    TEST,
    Clip,
    SaidBy,
    Skipped,
    clips_of,
    content,
    place_of,
    real,
    stray,
)
from r2m.index.layout import Context, Layout
from r2m.index.methods import FACEFORENSICS, key
from r2m.index.scan import Listing, children

TITLE = "FaceForensics++"
DFD = "DeepFakeDetection"
ORIGINALS, MANIPULATED = "original_sequences", "manipulated_sequences"
# What folders of DeepFakeDetection are called after.
DFD_KEYS = ("deepfakedetection", "dfd")
# Reals, folder → whether they are DeepFakeDetection's.
REALS = {"youtube": False, "actors": True}


def recognizes(path: Path) -> bool:
    """Tell whether a folder holds sequences, is a folder of them, or that of one manipulation."""
    if not path.is_dir():
        return False
    below = {name.casefold() for name, is_folder in children(path).items() if is_folder}
    if below & {ORIGINALS, MANIPULATED} or path.name.casefold() in {ORIGINALS, MANIPULATED}:
        return True
    return bool(methods.find(path.name, FACEFORENSICS)) and bool(below & COMPRESSIONS.keys())


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield the clips of all sequences; DeepFakeDetection has no split and is tested on only.

    Raises:
        R2MError: an unknown manipulation.
    """
    for listing in content(root, context.lists):
        if isinstance(listing, Skipped):
            yield listing
            continue
        folders = (root.name, *listing.parts)
        names = [folder.casefold() for folder in folders]
        named = next((index for index, name in enumerate(names) if _is_named_original(name)), None)
        if named is not None:
            # Mirrors call DeepFakeDetection's reals so; of other folders nothing tells the data set.
            if key(folders[named]).startswith(DFD_KEYS):
                yield from _of_sequence(listing, folders[named:], True, True, context)
            else:
                reason = f"originals of which data set? expected {ORIGINALS}/youtube or {ORIGINALS}/actors"
                yield from stray(listing, folders[named], reason)
            continue
        top = next((name for name in (ORIGINALS, MANIPULATED) if name in names), None)
        rest = folders[names.index(top) + 1 :] if top else folders
        if top == ORIGINALS and rest and rest[0].casefold() in REALS:
            is_dfd = REALS[rest[0].casefold()]
        elif top != ORIGINALS and rest and (top or methods.find(rest[0], FACEFORENSICS)):
            methods.get(rest[0], (*context.own, *FACEFORENSICS), listing.path)
            is_dfd = methods.find(rest[0], FACEFORENSICS) is FACEFORENSICS[-1]
        else:
            reason = f"in no folder of sequences; expected {ORIGINALS}/youtube or {MANIPULATED}/METHOD"
            yield from stray(listing, folders[-1], reason)
            continue
        yield from _of_sequence(listing, rest, top == ORIGINALS, is_dfd, context)


def _is_named_original(name: str) -> bool:
    """Tell whether a folder's name is more than that of originals: `DeepFakeDetection_original_sequences`."""
    return name != ORIGINALS and key(ORIGINALS) in key(name)


def _of_sequence(
    listing: Listing, rest: tuple[str, ...], is_real: bool, is_dfd: bool, context: Context
) -> Iterator[Clip]:
    place = place_of(rest[1:])
    domain, title = ("dfd", DFD) if is_dfd else ("ff", TITLE)
    said = TEST if is_dfd else NOTHING
    said_by: SaidBy = "protocol" if is_dfd else "official"
    traits = real(domain, title, domain, said, place.compression, said_by)
    if not is_real:
        traits = traits.forged(methods.get(rest[0], (*context.own, *FACEFORENSICS)))
    for clip in clips_of(listing, traits, place.inside, is_video=True):
        if not is_real and clip.media == "image" and place.inside:
            clip.masks = _masks(clip, listing, rest)
        yield clip


def _masks(clip: Clip, listing: Listing, rest: tuple[str, ...]) -> dict[str, str]:
    """Return frame → mask; one set of masks may serve all levels of compression."""
    folder = Path(listing.path).parents[len(rest) - 2]  # of the manipulation
    levels = [part for part in rest[1:] if part.casefold() in COMPRESSIONS]
    for place in (*(folder / level for level in (*levels, "c23")), folder):
        of_video = place / "masks" / listing.parts[-1]
        by_stem = {Path(name).stem: f"{of_video}/{name}" for name in children(of_video)}
        if by_stem:
            stems = {file: Path(file).stem for file in clip.files}
            return {file: by_stem[stem] for file, stem in stems.items() if stem in by_stem}
    return {}


LAYOUT = Layout(
    title=TITLE,
    expects=f"{ORIGINALS}/{{youtube,actors}}/c23/{{frames,videos}}/…, {MANIPULATED}/METHOD/c23/…",
    recognizes=recognizes,
    clips=clips,
    order=10,
)
