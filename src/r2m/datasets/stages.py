"""The workflow's stages of data sets: validation, reals of domains, fakes of generators, digests of rows."""

import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from r2m import manifest
from r2m.data.align import template
from r2m.data.faces import LANDMARK_COLUMNS, Settings, extract, report, write_skipped
from r2m.data.intake import Skipped
from r2m.data.options import FacesOptions
from r2m.data.split import require_images
from r2m.datasets.options import DatasetOptions
from r2m.datasets.slices import Part, read_index, taken_digest
from r2m.datasets.take import (
    identities,
    image_rows,
    sampled,
    sources,
    stem_of,
    with_splits,
    with_splits_of_people,
)
from r2m.files import atomic_path, write_text
from r2m.index import table
from r2m.validate.stages import validate as check_index
from r2m.video.extract import VideoFile, VideoOptions, extract_videos
from r2m.video.sample import policy

READ = ("path", "video", "frame", "media", "identity", "identity2", "split", "size")
# What an image set keeps of the files of a folder that lie elsewhere: path, bytes.
ELSEWHERE = "elsewhere.csv"


@dataclass(frozen=True)
class Taken:
    """Images of an image set, one row each, and (path, reason) of the files that gave none.

    `rows` has the columns of `READ`, and image_id, digest, crop (path of the aligned crop), landmarks (5, 2)
    in pixels of a crop, embedding and `own`: whether path and crop lie below the image set's folder and are
    relative to it. Other files lie where they lay.
    """

    rows: pd.DataFrame
    skipped: Skipped


def reals(
    *,
    domain: str,
    options: DatasetOptions,
    root: Path,
    part: Part,
    faces: FacesOptions,
    image_size: int,
    seed: int,
    detector: Path | None,
    embedder: Path | None,
    state: Path,
    out: Path,
    threads: int,
) -> None:
    """Write the image set of a domain, whose reals are a `part` of a data set, into the folder `out`.

    `root` is the folder of the data set's files. Aligned crops are read where they lie unless they are to be
    encoded; their landmarks are those of the template. What video files gave is kept in `state` until the set
    is whole.

    Raises:
        R2MError: no index, a missing detector, or too few usable images.
    """
    settings = Settings(faces, image_size, seed, detector, embedder, threads)
    with atomic_path(out) as folder:
        folder.mkdir()
        taken = take(options, root, part, domain, settings, folder, state, crops=folder / "crops")
        rows = described(taken.rows, options, part, manifest.REAL)
        rows = rows.assign(source_image=None, family=manifest.REAL)
        report(domain, len(rows), taken.skipped)
        write_skipped(folder / "skipped.csv", taken.skipped)
        expected = manifest.SPLITS if part.splits == "all" else ("test",)
        require_images(list(rows["split"]), expected, faces.min_images, f"domains.{domain}")
        landmarks = landmark_table(settled(taken.rows, out))
        landmarks.to_parquet(folder / "landmarks.parquet", index=False)
        publish(rows, folder, out)
        is_crop = taken.rows["own"] & (taken.rows["crop"] != taken.rows["path"])
        list_elsewhere(settled(taken.rows, out)["crop"], taken.rows["size"], is_crop, folder / "crops")
    shutil.rmtree(state, ignore_errors=True)


def fakes(
    *,
    generator: str,
    family: str,
    is_trained: bool,
    options: DatasetOptions,
    root: Path,
    parts: Sequence[Part],
    domains: Mapping[str, Path],
    faces: FacesOptions,
    image_size: int,
    seed: int,
    detector: Path | None,
    embedder: Path | None,
    state: Path,
    out: Path,
    threads: int,
) -> None:
    """Write the fakes of `generator`, which are `parts` of a data set, into the folder `out`.

    Reals among the parts come with the generator, as a domain by its name. `domains` is the name of a domain
    → the manifest of its reals: fakes know by it which real they were made from, and their people keep its
    split. Raises R2MError like `reals`.
    """
    settings = Settings(faces, image_size, seed, detector, embedder, threads)
    with atomic_path(out) as folder:
        folder.mkdir()
        tables: list[pd.DataFrame] = []
        skipped: Skipped = []
        for part in parts:
            taken = take(options, root, part, generator, settings, folder, state)
            rows = described(taken.rows, options, part, generator)
            tables.append(rows.assign(family=family if part.label else manifest.REAL))
            skipped += taken.skipped
        rows = concat(tables)
        own = rows[rows["label"] == 0].assign(source_image=None)
        known = concat([*map(manifest.read, domains.values()), own])
        made, unusable = with_splits_of_people(rows[rows["label"] == 1], people(known), is_trained)
        skipped += unusable
        made = made.assign(source_image=pd.Series(sources(made, known), index=made.index, dtype=object))
        rows = concat([own, made])
        report(generator, len(rows), skipped)
        write_skipped(folder / "skipped.csv", skipped)
        expected = manifest.SPLITS if is_trained else ("test",)
        for label, content in ((0, "reals"), (1, "fakes")):
            if label or len(own):
                splits = list(rows.loc[rows["label"] == label, "split"])
                require_images(splits, expected, faces.min_images, f"generators.{generator} ({content})")
        publish(rows, folder, out)
    shutil.rmtree(state, ignore_errors=True)


def validate(
    *,
    index: Path,
    root: Path | None,
    contents: bool,
    allow_leakage: bool,
    cache: Path,
    name: str,
    trained: Collection[str],
    out: Path,
    threads: int,
) -> None:
    """Validate an index, and note in `out`/index.txt which rows the report in `out` is of.

    Of domains that are not `trained` on, what is tested on is looked at.

    Raises:
        R2MError: an error that validation finds, or like `read_index`.
    """
    held = read_index(index)
    check_index(
        index=index,
        root=root,
        contents=contents,
        allow_leakage=allow_leakage,
        cache=cache,
        name=name,
        out=out,
        threads=threads,
        tested=sorted({one.domain for one in held.slices} - set(trained)),
    )
    write_text(out / "index.txt", f"{held.state()}\n")


def slice_digest(*, options: DatasetOptions, parts: Sequence[Part], digest: Path) -> None:
    """Write a digest of the parts of a data set that an image set is made of, and of how they are taken."""
    rows = [table.slice_of(options.index, domain=part.domain, method=part.method) for part in parts]
    digests = [table.slice_digest(one) if len(one) else None for one in rows]
    write_text(digest, f"{taken_digest(digests, options)}\n")


def no_slices(*, names: Sequence[str], out: Path) -> None:
    """Write `out`/NAME for image sets that are of no data set."""
    for name in names:
        write_text(out / name, "none\n")


def take(
    options: DatasetOptions,
    root: Path,
    part: Part,
    prefix: str,
    settings: Settings,
    folder: Path,
    state: Path,
    crops: Path | None = None,
) -> Taken:
    """Take the images of a part of a data set below `root`; name them `prefix`/path without suffix.

    What is encoded goes below `folder`/images, and crops of faces below the folder `crops` where it is given.
    Raises R2MError where there is no index, or a file that it names cannot be taken for what it is.
    """
    rows = table.slice_of(options.index, domain=part.domain, method=part.method, columns=READ).to_pandas()
    rows = with_splits(plain(rows), part.splits)
    is_video = rows["media"] == "video"
    images = sampled(rows[~is_video], options.frames)
    named, skipped = image_rows(images, prefix, root)
    if options.aligned and options.encode == "none":
        taken = [in_place(named, settings)]
    else:
        taken = [encoded(named, prefix, root, options, settings, folder, crops)]
    if is_video.any():
        taken.append(of_videos(rows[is_video], prefix, root, options, settings, folder, crops, state))
    return Taken(
        concat([one.rows for one in taken]),
        [*skipped, *(item for one in taken for item in one.skipped)],
    )


def concat(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of tables; those without rows have no say in the types of columns."""
    return pd.concat([one for one in tables if len(one)] or tables[:1], ignore_index=True)


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of an index with text in place of categories, and whole numbers of frames that may lack."""
    text = {column: object for column in rows.columns if column not in ("frame", "size")}
    return rows.astype(text).astype({"frame": "Int64"})


def in_place(rows: pd.DataFrame, settings: Settings) -> Taken:
    """Take aligned crops as they are, from where they lie; none is opened."""
    landmarks = template(settings.options.crop_size, settings.options.margin)
    empty = np.empty(0, np.float32)
    return Taken(
        rows.assign(
            own=False,
            digest=None,
            crop=rows["path"],
            landmarks=pd.Series([landmarks] * len(rows), index=rows.index, dtype=object),
            embedding=pd.Series([empty] * len(rows), index=rows.index, dtype=object),
        ),
        [],
    )


def encoded(
    rows: pd.DataFrame,
    prefix: str,
    root: Path,
    options: DatasetOptions,
    settings: Settings,
    folder: Path,
    crops: Path | None,
) -> Taken:
    """Take photographs or crops as all other images are: aligned, and encoded unless crops are to be kept."""
    if options.aligned:
        settings = Settings(settings.options, settings.image_size, settings.seed, threads=settings.threads)
    files = [Path(path).relative_to(root) for path in rows["path"]]
    is_lossless = options.encode == "none"
    images = folder / "images"
    if is_lossless:
        unused = folder / "encoded"
        faces = extract(root, files, prefix, settings, unused, images)
        shutil.rmtree(unused, ignore_errors=True)
    else:
        faces = extract(root, files, prefix, settings, images, crops)
    suffix = ".png" if is_lossless else ".jpg"
    stems = [stem_of(file.as_posix()) for file in faces.file]
    paths = [f"images/{stem}{suffix}" for stem in stems]
    crop = paths if is_lossless or crops is None else [f"crops/{stem}.png" for stem in stems]
    taken = rows.set_index("image_id").loc[faces.image_id].reset_index()
    taken = taken.assign(
        own=True,
        path=paths,
        digest=faces.digest,
        crop=crop,
        landmarks=pd.Series(list(faces.landmarks), dtype=object),
        embedding=pd.Series(list(faces.embedding), dtype=object),
    )
    return Taken(taken, faces.skipped)


def of_videos(
    rows: pd.DataFrame,
    prefix: str,
    root: Path,
    options: DatasetOptions,
    settings: Settings,
    folder: Path,
    crops: Path | None,
    state: Path,
) -> Taken:
    """Take faces from frames of video files; with `faces: all` each that is followed is a video."""
    stems = [stem_of(path) for path in rows["path"]]
    times = Counter(stems)
    names = [stem if times[stem] == 1 else path for stem, path in zip(stems, rows["path"], strict=True)]
    files = [VideoFile(root / path, name) for path, name in zip(rows["path"], names, strict=True)]
    chosen = VideoOptions(options.frames, options.faces, options.encode)
    given_crops = None if options.encode == "none" else crops
    if crops is None:  # Who is on fakes is told by names alone.
        settings = replace(settings, embedder=None)
    found = extract_videos(files, settings, chosen, prefix, folder / "images", given_crops, state)
    if found.table.empty:
        return Taken(rows.iloc[:0], list(found.skipped))
    faces = found.table.reset_index(drop=True)
    of_video = rows.assign(name=names).set_index("name")
    is_track = faces["video"].isin(of_video.index)
    base = faces["video"].where(is_track, faces["video"].str.replace(r"/track\d+$", "", regex=True))
    tracks = [video.removeprefix(name) for video, name in zip(faces["video"], base, strict=True)]
    taken = of_video.loc[base].reset_index(drop=True)
    videos = taken["video"].where(taken["video"].notna(), pd.Series(list(base), dtype=object))
    paths = [f"images/{file}" for file in faces["file"]]
    is_lossless = given_crops is None
    taken = taken.assign(
        image_id=faces["image_id"],
        own=True,
        path=paths,
        video=[f"{video}{track}" for video, track in zip(videos, tracks, strict=True)],
        frame=faces["frame"].astype("Int64"),
        digest=faces["digest"],
        crop=paths if is_lossless else [f"crops/{stem_of(str(file))}.png" for file in faces["file"]],
        landmarks=faces["landmarks"],
        embedding=faces["embedding"],
    )
    return Taken(taken, list(found.skipped))


def described(rows: pd.DataFrame, options: DatasetOptions, part: Part, generator: str) -> pd.DataFrame:
    """Return manifest rows but for family and source_image; fakes are those of `generator`.

    Columns identity2 (the other person of a pair), size and own are kept beside.
    """
    in_video = rows["video"].notna()
    owner = generator if part.name == generator else None
    return pd.DataFrame(
        {
            "image_id": rows["image_id"],
            "path": rows["path"],
            "label": part.label,
            "generator": generator if part.label else manifest.REAL,
            "domain": part.name,
            "identity": pd.Series(identities(rows, owner), index=rows.index, dtype=object),
            "identity2": rows["identity2"],
            "video": rows["video"],
            "split": rows["split"],
            "digest": rows["digest"],
            "frame": rows["frame"].astype(str).astype(object).where(rows["frame"].notna(), None),
            "sampling": pd.Series(policy(options.frames), index=rows.index, dtype=object).where(
                in_video, None
            ),
            "size": rows["size"],
            "own": rows["own"],
        }
    )


def people(reals: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return (domain, identity) → split, of those whose images are all of one split."""
    known = reals[["domain", "identity", "split"]].drop_duplicates()
    known = known[~known.duplicated(["domain", "identity"], keep=False)]
    return {
        (str(domain), str(person)): str(split)
        for domain, person, split in known.itertuples(index=False, name=None)
    }


def settled(rows: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Return rows whose path (and crop) leads from the folder of params.yaml; the image set is `out`."""
    whole = {
        column: [
            f"{out.as_posix()}/{path}" if own else path
            for path, own in zip(rows[column], rows["own"], strict=True)
        ]
        for column in ("path", "crop")
        if column in rows
    }
    return rows.assign(**whole)


def landmark_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table image_id, crop, x0, y0, …, x4, y4, embedding that `read_landmarks` reads; by image_id.

    Landmarks of crops that are read where they lie are in pixels of a crop of `faces.crop_size`.
    """
    points = np.stack(list(rows["landmarks"])).reshape(len(rows), 10)
    marks = pd.DataFrame(points, columns=list(LANDMARK_COLUMNS))
    marks.insert(0, "crop", list(rows["crop"]))
    marks.insert(0, "image_id", list(rows["image_id"]))
    marks["embedding"] = list(rows["embedding"])
    return marks.sort_values("image_id", ignore_index=True)


def publish(rows: pd.DataFrame, folder: Path, out: Path) -> None:
    """Write the manifest of an image set into `folder`, which becomes `out`; list what it reads elsewhere."""
    list_elsewhere(rows["path"], rows["size"], rows["own"], folder / "images")
    manifest.write(settled(rows, out), folder / "manifest.parquet")


def list_elsewhere(paths: pd.Series, sizes: pd.Series, inside: pd.Series, folder: Path) -> None:
    """List the files that stand for those of a folder but are not `inside`, with their sizes by the index.

    So the folder is there, and its digest tells of them.
    """
    folder.mkdir(exist_ok=True)
    listed = pd.DataFrame({"path": paths, "bytes": sizes})[~inside.astype(bool)]
    if len(listed):
        listed.sort_values("path").to_csv(folder / ELSEWHERE, index=False)
