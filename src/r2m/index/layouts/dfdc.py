"""DFDC: parts of training videos with `metadata.json`, and test videos with `labels.csv`."""

import csv
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
)
from r2m.index.json_file import read_object
from r2m.index.layout import Context, Layout
from r2m.index.scan import children

TITLE = "DFDC"
METADATA, LABELS = "metadata.json", "labels.csv"
# So many levels below the data set lists are looked for: train/dfdc_train_part_0.
DEPTH = 2
SAID: Mapping[str, Said] = {"train": NO_TEST, "validation": frozenset({"val"}), "val": frozenset({"val"})}


def recognizes(path: Path) -> bool:
    """Tell whether a folder is a part with its list, or holds such parts."""
    below = children(path)
    if _is_labelled(path) or path.name.casefold().startswith("dfdc_train_part"):
        return True
    return any(
        is_folder
        and (
            name.casefold().startswith("dfdc_train_part")
            or (name.casefold() in ("train", "test", "validation") and _has_list(path / name))
        )
        for name, is_folder in below.items()
    )


def clips(root: Path, context: Context) -> Iterator[Clip | Skipped]:
    """Yield the videos of all parts; training videos are not tested on, those of `labels.csv` are.

    Raises:
        R2MError: a list cannot be read, or a part has none.
    """
    lists = {part: _list(part) for part in _labelled(root.absolute(), DEPTH)}
    missing = {part: set(lists[part]) for part in lists}
    method = methods.get("dfdc_fake", methods.OTHERS)
    for listing in content(root, (METADATA, LABELS, *context.lists)):
        if isinstance(listing, Skipped):
            yield listing
            continue
        for part in _above(Path(listing.path), root):
            if part not in lists:
                lists[part] = _list(part)
            if lists[part]:
                break
        else:
            raise R2MError(f"{listing.path}: expected {METADATA} or {LABELS} with the labels of these videos")
        inside = place_of(Path(listing.path).relative_to(part).parts).inside
        seen: dict[str, int] = {}
        for clip in clips_of(listing, real("dfdc", TITLE, "dfdc"), inside, is_video=True):
            name = (clip.video or "").rpartition("/")[2]
            entry = lists[part].get(name.casefold())
            if entry is None:
                seen[next(iter(clip.files))] = len(clip.files)
                continue
            for above in _above(part, root):
                missing.get(above, set()).discard(name.casefold())
            person = (f"dfdc/{entry['original']}",)
            reals = real("dfdc", TITLE, "dfdc", entry["said"])
            traits = reals.forged(method) if entry["is_fake"] else reals
            clip.traits, clip.said, clip.persons, clip.video = traits, traits.said, person, name
            yield clip
        if seen:
            reason = f"in no list of labels; expected it in {METADATA} or {LABELS}"
            yield Skipped(f"{listing.path}/{min(seen)}", min(seen), reason, sum(seen.values()))
    for part, names in missing.items():
        if names:
            reason = "videos of the list that are not there"
            yield Skipped(str(_path_of_list(part)), min(names), reason, len(names))


def _labelled(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the folders with a list of DFDC, `folder` and those some levels below it."""
    if _is_labelled(folder):
        yield folder
    elif depth:
        for name, is_folder in children(folder).items():
            if is_folder:
                yield from _labelled(folder / name, depth - 1)


def _above(folder: Path, root: Path) -> Iterator[Path]:
    for path in (folder, *folder.parents):
        yield path
        if path == root.absolute():
            return


def _has_list(folder: Path) -> bool:
    parts = (name.casefold().startswith("dfdc_train_part") for name in children(folder))
    return _is_labelled(folder) or any(parts)


def _is_labelled(folder: Path) -> bool:
    """Tell whether a folder's list begins like one of DFDC's."""
    for name, words in ((METADATA, (b'"REAL"', b'"FAKE"')), (LABELS, (b"filename", b"label"))):
        if (folder / name).is_file():
            with open(folder / name, "rb") as file:
                head = file.read(1 << 12)
            if any(word in head for word in words):
                return True
    return False


def _list(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return video → is_fake, original and split, by the list of a folder; empty if it has none."""
    path = _path_of_list(folder)
    if not path.is_file():
        return {}
    return _metadata(path) if path.name == METADATA else _labels(path)


def _path_of_list(folder: Path) -> Path:
    return folder / (METADATA if (folder / METADATA).is_file() else LABELS)


def _metadata(path: Path) -> dict[str, Mapping[str, Any]]:
    entries: dict[str, Mapping[str, Any]] = {}
    for file, entry in read_object(path).items():
        label = entry.get("label", entry.get("is_fake")) if isinstance(entry, dict) else None
        if label not in ("REAL", "FAKE", 0, 1):
            raise R2MError(f"{path}: {file}.label: expected REAL or FAKE, got {label!r}")
        stem = Path(file).stem
        entries[stem.casefold()] = {
            "is_fake": label in ("FAKE", 1),
            "original": Path(entry.get("original") or file).stem,
            "said": SAID.get(str(entry.get("split", "train")).casefold(), TEST),
        }
    return entries


def _labels(path: Path) -> dict[str, Mapping[str, Any]]:
    entries: dict[str, Mapping[str, Any]] = {}
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        for column in ("filename", "label"):
            if column not in (reader.fieldnames or ()):
                raise R2MError(f"{path}: no column {column!r}; expected filename and label")
        for row in reader:
            if row["label"] not in ("0", "1"):
                raise R2MError(
                    f"{path}: line {reader.line_num}: label: expected 0 or 1, got {row['label']!r}"
                )
            stem = Path(row["filename"]).stem
            original = Path(row.get("original") or stem).stem
            entries[stem.casefold()] = {"is_fake": row["label"] == "1", "original": original, "said": TEST}
    return entries


LAYOUT = Layout(
    title=TITLE,
    expects=f"dfdc_train_part_N/{METADATA}, test/{LABELS}",
    recognizes=recognizes,
    clips=clips,
    order=30,
)
