"""The manifest: the one table that stages exchange, one row per encoded image."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from r2m.errors import R2MError
from r2m.files import atomic_path

COLUMNS = (
    "image_id",
    "path",
    "label",
    "generator",
    "family",
    "domain",
    "identity",
    "source_image",
    "video",
    "split",
    "digest",
    "frame",
    "sampling",
)
# `digest` is of the bytes of the user's file that the image was made from. `frame` is the number of a frame
# in its video, and `sampling` how frames were chosen, "up to 8 of each video, evenly"; none: all of them.
OPTIONAL = ("source_image", "video", "digest", "frame", "sampling")
# What a table need not have at all.
_ADDED = ("digest", "frame", "sampling")
SPLITS = ("train", "val", "test")
REAL = "real"
FAMILIES = ("FS", "FR", "EFS", "FE", REAL)


def read(path: str | Path) -> pd.DataFrame:
    """Return the manifest at `path`, checked.

    Raises:
        R2MError: the file is missing, is not Parquet, or is not a manifest.
    """
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read the manifest: {error}") from error
    return check(frame, str(path))


def write(frame: pd.DataFrame, path: str | Path) -> None:
    """Check `frame`, sort it by image_id and write it as Parquet, atomically."""
    ordered = check(frame, str(path)).sort_values("image_id", ignore_index=True)
    with atomic_path(path) as temporary:
        ordered.to_parquet(temporary, index=False)


def concat(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return all rows of several manifests, sorted by image_id, checked as one."""
    joined = pd.concat(list(frames), ignore_index=True).sort_values("image_id", ignore_index=True)
    return check(joined, "the manifests together")


def check(frame: pd.DataFrame, name: str = "manifest") -> pd.DataFrame:
    """Return `frame` with the columns of a manifest in their order and types.

    The columns `digest`, `frame` and `sampling` may be missing.

    Raises:
        R2MError: names `name`, the column and the first wrong value.
    """
    frame = frame.assign(**{column: None for column in _ADDED if column not in frame})
    if missing := [column for column in COLUMNS if column not in frame]:
        raise R2MError(f"{name}: no column {missing[0]!r}; expected {', '.join(COLUMNS)}")
    frame = frame.loc[:, list(COLUMNS)]
    _check_values(frame, name)
    typed = {column: "str" for column in COLUMNS if column != "label"} | {"label": "int8"}
    return frame.astype(typed)


def _check_values(frame: pd.DataFrame, name: str) -> None:
    """Raise R2MError at the first column that holds a value it must not hold."""
    required = [column for column in COLUMNS if column not in OPTIONAL]
    label, real = frame["label"], frame["generator"] == REAL
    wrong = {column: frame[column].isna() for column in required}
    rules = {
        "image_id": frame["image_id"].duplicated(),
        "path": frame["path"].astype("str").str.contains("\\", regex=False),
        "label": ~label.isin([0, 1]) | ((label == 0) != real),
        "family": ~frame["family"].isin(FAMILIES) | ((frame["family"] == REAL) != real),
        "split": ~frame["split"].isin(SPLITS),
    }
    wrong |= {column: wrong[column] | rule for column, rule in rules.items()}
    for column, rows in wrong.items():
        if rows.any():
            row = frame.loc[rows].iloc[0]
            raise R2MError(f"{name}: column {column!r} holds {row[column]!r} (image {row['image_id']!r})")
