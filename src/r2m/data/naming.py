"""What the names of folders and files say of images: real or fake, which video, and who is on it."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ImageClass = Literal["real", "fake"]

# Folders that say how images are stored or split, not what is on them.
CONTAINERS = frozenset(
    {"frames", "frame", "images", "image", "imgs", "img", "faces", "face", "crops", "crop", "videos", "video"}
    | {"raw", "c0", "c23", "c40", "png", "jpg", "jpeg"}
    | {"original_sequences", "manipulated_sequences", "youtube", "actors"}
    | {"train", "training", "val", "valid", "validation", "test", "testing"}
)
MASKS = frozenset({"mask", "masks"})
REAL_WORDS = frozenset({"real", "reals", "nature", "original", "originals", "pristine", "authentic"})
FAKE_WORDS = frozenset(
    {"fake", "fakes", "ai", "synthesis", "synthetic", "manipulated", "generated", "forged"}
    | {"deepfake", "deepfakes"}
)
# Words of folders that are called after a whole data set of both classes, such as `deepfakes_detection`.
DATASET_WORDS = frozenset({"dataset", "datasets", "detection", "benchmark", "bench"})

# A word, a frame's number, and perhaps that of a face on it. Words in capitals are those of cameras.
FRAME = re.compile(
    r"(?P<word>(?:[a-z]+|[A-Z][a-z]+)?)[-_ ]?(?P<frame>\d+)(?:[-_ .@]?[A-Za-z]*[-_ ]?\d{0,2}x?)"
)
CELEB_DF = re.compile(r"id(?P<target>\d+)(?:_id(?P<source>\d+))?_(?P<number>\d{4})")
# The two people of DeepFakeDetection's fakes, the scene, and a random tag.
DFD = re.compile(r"(?P<target>\d{2})(?:_(?P<source>\d{2}))?__(?P<scene>.+?)(?:__[A-Z0-9]{8})?")
# FaceForensics++: the video that was forged, and the one that the face came from.
PAIR = re.compile(r"(?P<target>\d{2,})_(?P<source>\d{2,})")
# Frames of videos in one flat folder: VIDEO_FRAME.
FLAT = re.compile(
    r"(?P<video>id\d+(?:_id\d+)?_\d{4}|\d{3}_\d{3})[-_](?:frame)?_?(?P<frame>\d+)", re.IGNORECASE
)


# Frames in a flat folder that the user says to be of videos: VIDEO_FRAME, whatever the video is called.
ANY_FLAT = re.compile(r"(?P<video>.+)[-_](?:frame)?_?(?P<frame>\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Shown:
    """What an image shows by its name.

    Attributes:
        video: name of the video that the image is a frame of; None for a photograph.
        people: names of the people on it, the one who was filmed first; empty where names tell nothing.
        source: name of the real video that the video was made from, or is.
        frame: number of the frame.
    """

    video: str | None = None
    people: tuple[str, ...] = ()
    source: str | None = None
    frame: int | None = None


def meaningful(folder: Path) -> tuple[str, ...]:
    """Return the parts of a relative folder that may name a person or a video."""
    return tuple(part for part in folder.parts if part.lower() not in CONTAINERS and not class_of_part(part))


def class_of_part(part: str) -> ImageClass | None:
    """Return the class that a folder's name says by whole words, such as `1_fake` or `Celeb-real`.

    A folder like `Fake_from_Celeb-real` is one of fakes; `whichisreal`, `real-esrgan` and data sets like
    `deepfakes_detection_datasets` say nothing.
    """
    words = [word for word in re.split(r"[^a-z]+", part.lower()) if word]
    if DATASET_WORDS.intersection(words):
        return None
    if FAKE_WORDS.intersection(words) or part.lower() == "manipulated_sequences":
        return "fake"
    is_real = bool(words) and words[-1] in REAL_WORDS
    return "real" if is_real or part.lower() == "original_sequences" else None


def class_of(path: Path) -> ImageClass | None:
    """Return the class that the innermost telling folder of a relative path says."""
    classes = [class_of_part(part) for part in path.parent.parts]
    return next((part for part in reversed(classes) if part is not None), None)


def is_mask(path: Path) -> bool:
    """Tell whether a relative path is by its folder or its name the mask of another image."""
    return any(part.lower() in MASKS for part in path.parent.parts) or path.stem.lower().endswith("_mask")


def people_of(name: str, image_class: ImageClass) -> tuple[tuple[str, ...], str]:
    """Return the people that a video's name says, and the name of the real video behind it.

    Known are the names of Celeb-DF (`id0_id1_0002`), DeepFakeDetection (`01_02__walking__ABCDEFGH`) and, for
    fakes, FaceForensics++ (`003_007`). Any other name is that of a person who has this one video.
    """
    if match := CELEB_DF.fullmatch(name):
        target, source = match["target"], match["source"]
        return _people("id", target, source), f"id{target}_{match['number']}"
    if match := DFD.fullmatch(name):
        return _people("", match["target"], match["source"]), f"{match['target']}__{match['scene']}"
    match = PAIR.fullmatch(name)
    if match and image_class == "fake" and len(match["target"]) == len(match["source"]):
        return _people("", match["target"], match["source"]), match["target"]
    return (name,), name


def shown(files: Sequence[Path], image_class: ImageClass, frames: bool | None = None) -> dict[Path, Shown]:
    """Return what each of the files of one folder (relative paths, all that there are) shows by its name.

    A sub-folder is a video if most of its images are numbered and numbers start anew in another sub-folder:
    frames do so, photographs that are merely spread over folders do not. It is one, too, if it and others are
    called as known data sets call videos, such as `003_007`; so is what an image in a flat folder is called
    after, such as `id0_id1_0002_15`. `frames` True takes every sub-folder for a video, and in a flat folder
    what stands before the last number; False takes none.
    """
    videos = _video_folders(files, image_class, frames)
    return {file: _shown(file, image_class, file.parent in videos, frames) for file in files}


def of_video(video: str, stem: str, image_class: ImageClass) -> Shown:
    """Return what the frame with the file name `stem` of the video `video` (a path) shows."""
    # A video file may be called as folders are that say nothing, such as `fake.mp4`.
    name = (meaningful(Path(video)) or (Path(video).name,))[-1]
    people, source = people_of(name, image_class)
    match = FRAME.fullmatch(stem) or FLAT.fullmatch(stem) or ANY_FLAT.fullmatch(stem)
    return Shown(video, people, source, int(match["frame"]) if match else None)


def of_frame(file: Path, image_class: ImageClass) -> Shown:
    """Return what a frame shows whose file (relative path) lies in the folder of its video."""
    return of_video(file.parent.as_posix(), file.stem, image_class)


def person_of_folder(folder: Path) -> str:
    """Return the name of the person whom a relative folder is called after; empty if there is none.

    Folders that only say how images are stored are left out, so that `c23/000` and `c40/000` are one person.
    """
    parts = meaningful(folder)
    return "/".join([*parts[:-1], people_of(parts[-1], "real")[0][0]]) if parts else ""


def _people(prefix: str, *names: str | None) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for name in dict.fromkeys(names) if name is not None)


def _video_folders(files: Sequence[Path], image_class: ImageClass, frames: bool | None) -> set[Path]:
    if frames is False:
        return set()
    stems: dict[Path, list[str]] = defaultdict(list)
    for file in files:
        stems[file.parent].append(file.stem)
    candidates = {folder: inside for folder, inside in stems.items() if meaningful(folder)}
    if frames:
        return set(candidates)
    numbers = {folder: _numbers(inside) for folder, inside in candidates.items()}
    times = Counter(number for folder_numbers in numbers.values() for number in folder_numbers)
    numbered = {
        folder
        for folder, folder_numbers in numbers.items()
        if any(times[number] > 1 for number in folder_numbers)
    }
    called = {folder for folder in candidates if _is_video_name(meaningful(folder)[-1], image_class)}
    return numbered | (called if len(called) > 1 else set())


def _numbers(stems: Sequence[str]) -> set[tuple[str, int]]:
    """Return the numbers, with the words before them, in the names of a folder of which most are numbered."""
    matches = [match for match in map(FRAME.fullmatch, stems) if match]
    if 2 * len(matches) <= len(stems):
        return set()
    return {(match["word"], int(match["frame"])) for match in matches}


def _is_video_name(name: str, image_class: ImageClass) -> bool:
    """Tell whether a known data set calls its videos so."""
    if CELEB_DF.fullmatch(name) or DFD.fullmatch(name):
        return True
    match = PAIR.fullmatch(name)
    return bool(match) and image_class == "fake" and len(people_of(name, "fake")[0]) > 1 and len(name) >= 7


def _shown(file: Path, image_class: ImageClass, in_video: bool, frames: bool | None) -> Shown:
    if in_video:
        return of_frame(file, image_class)
    if frames is False:
        return Shown()
    if CELEB_DF.fullmatch(file.stem) or DFD.fullmatch(file.stem):
        return of_video(file.with_suffix("").as_posix(), "", image_class)
    match = (ANY_FLAT if frames else FLAT).fullmatch(file.stem)
    # Of a real, 003_012_5 may as well be the 12th face of a video 003.
    if match and (frames or image_class == "fake" or CELEB_DF.fullmatch(match["video"])):
        return of_video((file.parent / match["video"]).as_posix(), file.stem, image_class)
    return Shown()
