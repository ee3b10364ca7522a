"""The rows that checks look at: those of the index, and what was found on disk."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.index import table as index_table
from r2m.manifest import SPLITS
from r2m.options import nearest
from r2m.validate.contents import read_contents
from r2m.validate.presence import are_present, split_paths
from r2m.validate.similar import partners

_READ = (
    "path",
    "label",
    "method",
    "family",
    "domain",
    "dataset",
    "video",
    "media",
    "identity",
    "identity2",
    "split",
    "split_by",
    "mask",
    "size",
)
_ENCODED = ("identity", "identity2")
# Text stays in Arrow's memory, whatever pandas' own default is.
_TEXT = {pa.string(): pd.StringDtype("pyarrow")}


def root_of(index: Path, root: Path | None) -> Path:
    """Return the folder that the paths of the index are relative to.

    Raises:
        R2MError: there is no such folder, or `index` is none.
    """
    folder = Path(index_table.metadata(index)["root"]) if root is None else root
    if not folder.is_dir():
        given = "the index names this root" if root is None else "given as --root"
        raise R2MError(
            f"{folder}: no such folder ({given}); expected the one that the files of {index} lie in"
        )
    return folder


def examine(
    index: Path, root: Path, *, contents: bool, cache: Path | None, threads: int, tested: Collection[str] = ()
) -> pd.DataFrame:
    """Return the rows of an index with what is on disk below `root`.

    Of the domains that are only `tested` on, rows of the splits train and val are left out: nobody uses them.

    Beside columns of the index (names are categories, splits in the order train, val, test) there are:
        folder: of the path, a category; empty for none.
        suffix: of the path, a category, lower case with its dot.
        present: whether the file is there.
        mask_present: whether the mask is there; true where none is named.
        video_id: number of the video (label, method, domain, video), −1 for a photograph.
        group: number of the video or of the photograph.
        person, person2: numbers of the people by their identity, −1 for nobody.
        copy: number of the content, or of the path where the content is not known.
    And with `contents`:
        disk_size: bytes of the file, −1 where it is gone.
        digest: of the content, empty where it cannot be read.
        phash: perceptual hash of an image.
        width, height: in pixels, 0 where unknown.
        problem: why the file cannot be used, empty where it can.
        near_split, near_label, near_neither: row of an image that is nearly equal, by what differs; −1: none.

    Raises:
        R2MError: no index, or one without rows or with unknown splits; a domain `tested` that it lacks; a
            folder that may not be listed.
    """
    table = index_table.read(index, _READ)
    if not len(table):
        raise R2MError(f"{index}: has no rows; expected one for every image or video")
    domains = set(pc.unique(table["domain"].cast(pa.string())).to_pylist())
    if unknown := sorted(set(tested) - domains):
        raise R2MError(f"--tested {unknown[0]}: no domain of {index}{nearest(unknown[0], domains)}")
    table = _used(table, tested)
    frame = _as_frame(table, index)
    folder, names = split_paths(table["path"])
    frame["folder"] = folder
    frame["suffix"] = _suffixes(names)
    frame["present"] = are_present(root, table["path"], threads)
    frame["mask_present"] = frame["mask"].isna().to_numpy(dtype=bool) | are_present(
        root, table["mask"], threads
    )
    frame["video_id"] = _video_ids(frame)
    is_photograph = frame["video_id"].to_numpy() < 0
    frame["group"] = np.where(is_photograph, -1 - np.arange(len(frame)), frame["video_id"])
    frame["person"], frame["person2"] = _people(frame)
    if not contents:
        frame["copy"] = pd.factorize(frame["path"])[0]
        return frame
    _add_contents(frame, root, cache, threads)
    digest = frame["digest"]
    frame["copy"] = pd.factorize(digest.where(digest != "", frame["path"]))[0]
    for name, rows in partners(frame).items():
        frame[f"near_{name}"] = rows
    return frame


def _used(table: pa.Table, tested: Collection[str]) -> pa.Table:
    """Return the rows but those that domains which are only tested on have beside the split `test`.

    A domain without that split is tested on as a whole.
    """
    domain, is_test = table["domain"].cast(pa.string()), pc.equal(table["split"].cast(pa.string()), "test")
    with_test = set(table.filter(is_test)["domain"].cast(pa.string()).unique().to_pylist())
    is_tested = pc.is_in(domain, value_set=pa.array(sorted(with_test.intersection(tested)), pa.string()))
    return table.filter(pc.or_(pc.invert(is_tested), is_test))


def _as_frame(table: pa.Table, index: Path) -> pd.DataFrame:
    for name in _ENCODED:
        table = table.set_column(table.schema.get_field_index(name), name, pc.dictionary_encode(table[name]))
    frame = table.unify_dictionaries().to_pandas(types_mapper=_TEXT.get)
    for name in ("method", "family", "domain", "dataset"):
        frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
    unknown = set(frame["split"].cat.categories) - set(SPLITS)
    if unknown:
        raise R2MError(f"{index}: column 'split' holds {min(unknown)!r}; expected {', '.join(SPLITS)}")
    frame["split"] = frame["split"].cat.set_categories(SPLITS, ordered=True)
    return frame


def _suffixes(names: pa.ChunkedArray) -> pd.Categorical:
    has_suffix = pc.match_substring(names, ".")
    suffixes = pc.utf8_lower(pc.replace_substring_regex(names, pattern=r"(?s)^.*\.", replacement="."))
    encoded = pc.dictionary_encode(pc.if_else(has_suffix, suffixes, "")).unify_dictionaries()
    return encoded.combine_chunks().to_pandas().array


def _video_ids(frame: pd.DataFrame) -> NDArray[np.int64]:
    key = frame["label"].to_numpy().astype(np.int64)
    for name in ("method", "domain", "video"):
        key = key * (len(frame[name].cat.categories) + 1) + frame[name].cat.codes.to_numpy()
    ids = np.unique(key, return_inverse=True)[1].astype(np.int64)
    # A file of a video that has no name is a video of its own.
    is_nameless = frame["video"].isna().to_numpy()
    is_file = (frame["media"] == "video").to_numpy()
    ids[is_nameless] = -1
    ids[is_nameless & is_file] = ids.max(initial=0) + 1 + np.flatnonzero(is_nameless & is_file)
    return ids


def _people(frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    columns = [frame[name].cat for name in ("identity", "identity2")]
    names = columns[0].categories.union(columns[1].categories)

    def numbers(column: pd.Series) -> NDArray[np.int64]:
        # The number −1 of a missing name picks the last one.
        return np.append(names.get_indexer(column.cat.categories), -1)[column.cat.codes.to_numpy()]

    return numbers(frame["identity"]), numbers(frame["identity2"])


def _add_contents(frame: pd.DataFrame, root: Path, cache: Path | None, threads: int) -> None:
    """Set the columns of contents."""
    # A file may stand in several rows, but is read once.
    codes, paths = pd.factorize(frame["path"])
    is_read = np.zeros(len(paths), dtype=bool)
    is_read[codes[frame["present"].to_numpy()]] = True
    is_video = np.zeros(len(paths), dtype=bool)
    is_video[codes[(frame["media"] == "video").to_numpy()]] = True
    chosen = np.flatnonzero(is_read)
    contents = read_contents(root, pa.array(paths[chosen], pa.string()), is_video[chosen], cache, threads)
    at = np.full(len(paths), -1)
    at[chosen] = np.arange(len(chosen))
    rows = at[codes]
    for name, column, missing in (
        ("disk_size", "size", -1),
        ("digest", "digest", ""),
        ("phash", "phash", 0),
        ("width", "width", 0),
        ("height", "height", 0),
        ("problem", "problem", ""),
    ):
        values = contents[column]
        padded = np.append(values, np.array([missing], dtype=values.dtype))
        series = pd.Series(padded[rows])
        frame[name] = series.astype(_TEXT[pa.string()]) if values.dtype == object else series
