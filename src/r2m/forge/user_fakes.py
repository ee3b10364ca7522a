"""A folder of the user's own fakes, and of the reals that they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from r2m import manifest
from r2m.data.faces import Faces, Settings, extract, once, report, report_videos, stem_of
from r2m.data.intake import Skipped, intake
from r2m.data.listing import is_video
from r2m.data.naming import ImageClass, Shown, of_frame, of_video, shown
from r2m.data.split import require_images
from r2m.errors import R2MError
from r2m.files import discard
from r2m.forge.identify import identify
from r2m.forge.options import GeneratorOptions
from r2m.video.folder import read_videos


def user_rows(
    name: str,
    options: GeneratorOptions,
    reals: pd.DataFrame,
    settings: Settings,
    folder: Path,
    trained: Sequence[Path] = (),
) -> tuple[pd.DataFrame, Skipped]:
    """Align and encode the user's fakes (and reals) of the generator `name` into `folder/images`.

    `identify` says who is on them, and what is left out for that. With reals of their own the fakes are
    called after those, and are a domain of their own. A fake that is a copy of a real is left out. `trained`
    are manifests of generators that are trained on; people whom they show keep the split they have there.
    What is done of videos is kept beside `folder` until all is, so that it goes on from there after a crash.

    Returns:
        Manifest rows (paths relative to `folder`) and the skipped files.

    Raises:
        R2MError: a folder is missing or empty, there is no training domain, or a split has too few images.
    """
    assert options.images is not None
    known = pd.concat([known_reals(reals), *map(known_elsewhere, trained)], ignore_index=True)
    copies = dict(zip(reals["digest"], reals["image_id"], strict=True))
    tables: list[pd.DataFrame] = []
    skipped: Skipped = []
    state = folder.with_name(f".{name}.videos")

    def take_in(source: Path, image_class: ImageClass, below: str) -> pd.DataFrame:
        faces, shows, left_out = imported(
            *(source, name, image_class, below, copies, options.frames, options.frames_per_video, settings),
            *(folder, state),
        )
        rows = identify(described(faces, shows, below), known, options.role, settings)
        skipped.extend(left_out)
        skipped.extend(
            once(
                ((source / file).as_posix(), reason)
                for file, reason in zip(rows["origin"], rows["objection"], strict=True)
                if reason is not None
            )
        )
        return rows[rows["objection"].isna()]

    if options.reals is not None:
        known["named"] &= known["elsewhere"]
        user_reals = take_in(Path(options.reals), "real", "real").assign(source_image=None)
        tables.append(user_reals.assign(label=0, generator=manifest.REAL, family=manifest.REAL))
        known = pd.concat([known, user_reals.assign(named=True, elsewhere=False)], ignore_index=True)
        copies |= dict(zip(user_reals["digest"], user_reals["image_id"], strict=True))
    fakes = take_in(Path(options.images), "fake", "fake" if options.reals else "")
    tables.append(fakes.assign(label=1, generator=name, family=options.family))
    rows = pd.concat(tables, ignore_index=True)
    rows["domain"] = name if options.reals else str(reals_of_training(reals)["domain"].iloc[0])
    report(name, len(rows), skipped)
    expected = manifest.SPLITS if options.role == "train" else ("test",)
    for label, content in ((0, "reals"), (1, "fakes")):
        if label == 1 or options.reals is not None:
            splits = list(rows.loc[rows["label"] == label, "split"])
            require_images(splits, expected, settings.options.min_images, f"generators.{name} ({content})")
    discard(state)
    return rows, skipped


def reals_of_training(reals: pd.DataFrame) -> pd.DataFrame:
    """Return the reals of the training domain: the one that has a split `train`."""
    trained = reals.loc[reals["split"] == "train", "domain"]
    if trained.empty:
        raise R2MError("generators: a folder of fakes needs a domain of the role 'train', and there is none")
    return reals[reals["domain"] == trained.iloc[0]]


def known_reals(reals: pd.DataFrame) -> pd.DataFrame:
    """Return the training domain's reals as `identify` takes them."""
    known = reals_of_training(reals)[["image_id", "identity", "split", "digest", "embedding", "video"]]
    files = [Path(image_id.split("/", 1)[1] + ".jpg") for image_id in known["image_id"]]
    shows = [
        of_video(video, file.stem, "real") if isinstance(video, str) else Shown()
        for video, file in zip(known["video"], files, strict=True)
    ]
    known = known.assign(named=True, elsewhere=False).reset_index(drop=True)
    return known.assign(file=pd.Series(files, dtype=object), **columns(shows))


def known_elsewhere(path: Path) -> pd.DataFrame:
    """Return what another generator shows as `identify` takes it: people by the names of videos, and copies.

    No image is made from its images, and names of photographs, often mere numbers, link to nobody.
    """
    images = manifest.read(path)
    images = images[images["digest"].notna()].reset_index(drop=True)
    shows = [
        replace(of_video(video, "", "fake" if label else "real"), source=None)
        if isinstance(video, str)
        else Shown()
        for video, label in zip(images["video"], images["label"], strict=True)
    ]
    images = images[["image_id", "identity", "split", "digest", "video"]].assign(elsewhere=True)
    images["named"] = images["video"].notna()
    images["file"] = pd.Series([Path(image_id) for image_id in images["image_id"]], dtype=object)
    images["embedding"] = pd.Series([np.empty(0, np.float32)] * len(images), dtype=object)
    images = images.assign(**columns(shows))
    return pd.concat([images, _second_people(images)], ignore_index=True)


def _second_people(images: pd.DataFrame) -> pd.DataFrame:
    """Return a row for everybody who is second on images only; both people of an image are of one split."""
    first_people = {names[0] for names in images["people"] if names}
    places = {
        name: i for i, names in enumerate(images["people"]) for name in names[1:] if name not in first_people
    }
    rows = images.iloc[list(places.values())].reset_index(drop=True)
    rows["people"] = pd.Series([(name,) for name in places], dtype=object)
    return rows.assign(identity=[f"stranger {name}" for name in places], digest=None)


def imported(
    source: Path,
    name: str,
    image_class: ImageClass,
    below: str,
    copies: Mapping[str, str],
    frames: bool | None,
    frames_per_video: int,
    settings: Settings,
    folder: Path,
    state: Path,
) -> tuple[Faces, list[Shown], Skipped]:
    """Align and encode the images and videos of the folder `source`; return faces, what they show, skips.

    `copies` is digest → image_id of reals that no fake may be a copy of; `state` keeps videos that are done.
    """
    files, left_out = intake(source, image_class)
    stills, videos = [[file for file in files if is_video(file) == is_one] for is_one in (False, True)]
    prefix, images = f"{name}/{below}".rstrip("/"), folder / "images" / below
    faces = extract(source, stills, prefix, settings, images)
    if videos:
        faces.extend(read_videos(source, videos, prefix, settings, frames_per_video, images, None, state))
    if image_class == "fake":
        reasons = {
            i: f"byte-identical to a real {medium(faces.origin[i])}: {copies[digest]}"
            for i, digest in enumerate(faces.digest)
            if digest in copies
        }
        faces.drop(reasons, source)
    if not faces.image_id:
        path, reason = faces.skipped[0]
        raise R2MError(f"{source}: no usable image; first: {path}: {reason}")
    of_file = shown(stills, image_class, frames)
    report_videos(prefix, [of_file[file] for file in faces.origin if file in of_file])
    shows = [
        of_frame(file, image_class) if is_video(origin) else of_file[file]
        for file, origin in zip(faces.file, faces.origin, strict=True)
    ]
    return faces, shows, left_out + faces.skipped


def medium(file: Path) -> str:
    """Return what a file of the user is called to them."""
    return "video" if is_video(file) else "photograph"


def described(faces: Faces, shows: list[Shown], below: str) -> pd.DataFrame:
    """Return the faces as the table that `identify` takes, with the column `path`."""
    inside = f"images/{below}/" if below else "images/"
    return pd.DataFrame(
        {
            "image_id": faces.image_id,
            "file": faces.file,
            "origin": faces.origin,
            "sampling": faces.sampling,
            "path": [f"{inside}{stem_of(file)}.jpg" for file in faces.file],
            "digest": faces.digest,
            "embedding": list(faces.embedding),
            **columns(shows),
        }
    )


def columns(shows: list[Shown]) -> dict[str, pd.Series]:
    """Return what images show as columns of objects."""
    return {
        key: pd.Series([getattr(show, key) for show in shows], dtype=object)
        for key in ("video", "people", "source", "frame")
    }
