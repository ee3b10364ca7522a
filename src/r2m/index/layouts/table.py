"""A table of the user's own, CSV or Parquet, with a row for every image or video file."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from r2m.errors import R2MError
from r2m.index import methods
from r2m.index.clips import (
    COMPRESSIONS,
    NOTHING,
    SPLIT_WORDS,
    Clip,
    Said,
    Skipped,
    Traits,
    frame_of,
    people,
    real,
)
from r2m.index.layout import Context, Layout
from r2m.index.locate import Locator
from r2m.index.methods import FACEFORENSICS, OTHERS, Method
from r2m.index.scan import Listing
from r2m.index.table import COLUMNS, REAL
from r2m.options import FAMILIES, nearest

LABELS = {"0": 0, "0.0": 0, "real": 0, "false": 0, "1": 1, "1.0": 1, "fake": 1, "true": 1}
# Columns of the index that come from the files themselves.
FROM_FILES = frozenset({"size", "media", "split_by"})
GIVEN = tuple(column for column in COLUMNS if column not in FROM_FILES)

Row = Mapping[str, str]


def recognizes(path: Path) -> bool:
    """Tell whether a path is a CSV or Parquet file."""
    return path.is_file() and path.suffix.casefold() in (".csv", ".parquet")


def clips(path: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield the files of the table, those of one video together.

    Raises:
        R2MError: a needed column is missing, a value is not what it should be, or no file is there.
    """
    columns = _columns(path, context.columns)
    count = len(columns["path"])
    columns["path"] = [file.replace("\\", "/").strip() for file in columns["path"]]
    locator = Locator((*context.roots, path.parent), context.methods, _common(columns["path"]))
    grouped: dict[tuple[Any, ...], Clip] = {}
    missing: list[str] = []
    without: list[str] = []
    for number in range(count):
        row = {name: values[number] for name, values in columns.items()}
        folder, _, name = row["path"].rpartition("/")
        listing = locator.folder(folder)
        if listing is None or not (name in listing.images or name in listing.videos):
            missing.append(row["path"])
            continue
        clip = _clip(grouped, path, number + 2, row, listing, name, context)
        if row.get("mask"):
            folder, _, file = row["mask"].replace("\\", "/").rpartition("/")
            masks = locator.folder(folder)
            if masks is not None and file in masks.images:
                clip.masks[name] = f"{masks.path}/{file}"
            else:
                without.append(row["mask"])
    if not grouped:
        raise R2MError(
            f"{path}: none of its {count} files is there"
            + (f", such as {missing[0]!r}; expected --root DIR, which they lie below" if missing else "")
        )
    yield from grouped.values()
    if missing:
        yield Skipped(missing[0], path.name, "listed, and not there", len(missing))
    if without:
        yield Skipped(without[0], path.name, "masks that are not there", len(without))


def _common(files: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that all paths begin with."""
    folders = [[part for part in file.split("/")[:-1] if part not in ("", ".")] for file in files]
    first, last = min(folders), max(folders)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(part for part, _ in same)


def _clip(
    grouped: dict[tuple[Any, ...], Clip],
    path: Path,
    line: int,
    row: Row,
    listing: Listing,
    name: str,
    context: Context,
) -> Clip:
    """Put the file of a row into the clip that it is of; return the clip."""
    where = f"{path}: row {line}"
    traits = _traits(path, where, row, context)
    is_image = name in listing.images
    video = row.get("video") or None
    if not is_image and video is None:
        video = name.rpartition(".")[0]
    named = tuple(f"{traits.people}/{row[key]}" for key in ("identity", "identity2") if row.get(key))
    persons = named or (people(traits, video.rpartition("/")[2]) if video else ())
    identity = (traits, listing.path, video, persons, name if not is_image else None)
    if identity not in grouped:
        media = "image" if is_image else "video"
        grouped[identity] = Clip(
            traits,
            listing.path,
            listing.real,
            {},
            video,
            persons,
            media,  # type: ignore[arg-type]
            traits.said,
        )
    clip = grouped[identity]
    clip.files[name] = listing.images[name] if is_image else listing.videos[name]
    if name in listing.links:
        clip.links[name] = listing.links[name]
    if row.get("frame"):
        number = frame_of(row["frame"].removesuffix(".0"))
        if number is None:
            raise R2MError(f"{where}: column 'frame': expected a number, got {row['frame']!r}")
        clip.frames[name] = number
    return clip


def _traits(path: Path, where: str, row: Row, context: Context) -> Traits:
    label = LABELS.get(row["label"].casefold()) if "label" in row else int(row["method"].casefold() != REAL)
    if label is None:
        raise R2MError(f"{where}: column 'label': expected 0, 1, real or fake, got {row['label']!r}")
    domain = methods.slug(row["domain"]) if row.get("domain") else methods.name_of(path.stem)
    title = row.get("dataset") or path.stem
    said = _said(where, row.get("split", ""))
    level = row.get("compression") or None
    if level is not None and level.casefold() not in COMPRESSIONS:
        raise R2MError(f"{where}: column 'compression': expected c0, c23 or c40, got {level!r}")
    level = COMPRESSIONS[level.casefold()] if level else None
    reals = real(domain, title, domain, said, compression=level)
    if not label:
        return reals
    if not row.get("method") or row["method"].casefold() == REAL:
        raise R2MError(f"{where}: column 'method': a fake of which method? got {row.get('method')!r}")
    return reals.forged(_method(where, row, context))


def _method(where: str, row: Row, context: Context) -> Method:
    family = row.get("family")
    if family:
        if family.upper() not in FAMILIES:
            expected = ", ".join(FAMILIES)
            raise R2MError(f"{where}: column 'family': expected one of {expected}, got {family!r}")
        return methods.own({row["method"]: family.upper()})[0]  # type: ignore[dict-item]
    return methods.get(row["method"], (*context.methods, *FACEFORENSICS, *OTHERS), where)


def _said(where: str, split: str) -> Said:
    if not split:
        return NOTHING
    if split.casefold() not in SPLIT_WORDS:
        raise R2MError(f"{where}: column 'split': expected train, val or test, got {split!r}")
    return frozenset({SPLIT_WORDS[split.casefold()]})


def _columns(path: Path, mapping: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Return the columns of the table by the names of the index, all as text."""
    import pandas as pd

    for name in mapping:
        if name not in GIVEN:
            raise R2MError(f"--column {name}={mapping[name]}: no column of the index{nearest(name, GIVEN)}")
    try:
        if path.suffix.casefold() == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        else:
            frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot be read as a table: {error}") from error
    if frame.empty:
        raise R2MError(f"{path}: holds no row")
    columns: dict[str, Sequence[str]] = {}
    for name in GIVEN:
        own = mapping.get(name, name)
        if own in frame:
            columns[name] = [str(value) for value in frame[own].astype(object).where(frame[own].notna(), "")]
        elif name in mapping:
            known = [str(column) for column in frame]
            raise R2MError(f"{path}: --column {name}={own}: no column {own!r}{nearest(own, known)}")
    if "path" not in columns or not {"label", "method"} & columns.keys():
        needed = "path" if "path" not in columns else "label"
        have = ", ".join(map(str, frame))
        raise R2MError(
            f"{path}: no column {needed!r}; expected path, and label or method; it has {have}:"
            f" --column {needed}=NAME says which it is"
        )
    return columns


LAYOUT = Layout(
    title="a table",
    expects="CSV or Parquet with columns path, label or method, and any of " + ", ".join(GIVEN),
    recognizes=recognizes,
    clips=clips,
    order=6,
)
