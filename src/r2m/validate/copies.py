"""Checks of images that are there more than once, to the byte or nearly."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.validate.check import PART, Finding, spread, tally

_KEYS = ["copy", "label", "domain", "split", "group", "path"]


def labels_of_copies(frame: pd.DataFrame) -> Finding:
    """Find contents that are labelled real in one row and fake in another."""
    return _differing(_copies(frame), frame, "label")


def copies_across_splits(frame: pd.DataFrame) -> Finding:
    """Find contents that are in several splits."""
    return _differing(_copies(frame), frame, "split")


def shared_reals(frame: pd.DataFrame) -> Finding:
    """Find real images that several domains, or generators that bring their reals, have."""
    copies = _copies(frame)
    reals = copies[copies["label"] == 0]
    return _differing(reals, frame, "domain")


def duplicates(frame: pd.DataFrame) -> Finding:
    """Find files beyond the first of the same content, label, domain and split, in different videos."""
    keys = ["copy", "label", "domain", "split"]
    first = _copies(frame).drop_duplicates("path").drop_duplicates([*keys, "group"])
    return _beyond_first(first[first.duplicated(keys, keep=False)], keys, frame)


def frozen_frames(frame: pd.DataFrame) -> Finding:
    """Find frames beyond the first of one video that have the same content."""
    keys = ["copy", "group"]
    copies = _copies(frame).drop_duplicates("path")
    return _beyond_first(copies[copies.duplicated(keys, keep=False)], keys, frame)


def near_across_splits(frame: pd.DataFrame) -> Finding:
    """Find images that are nearly equal to one of another split."""
    return _near(frame, "near_split")


def near_across_labels(frame: pd.DataFrame) -> Finding:
    """Find images that are nearly equal to one of the other label in the same split."""
    return _near(frame, "near_label")


def near_duplicates(frame: pd.DataFrame) -> Finding:
    """Find images that are nearly equal to one of the same split and label."""
    return _near(frame, "near_neither")


def pairs_of(frame: pd.DataFrame, rows: NDArray[np.intp], others: NDArray[np.intp]) -> pd.DataFrame:
    """Return rows and others (E,) of the frame beside each other, as examples."""
    columns = ["path", *PART, "label"]
    left = frame.iloc[rows][columns].reset_index(drop=True)
    right = frame.iloc[others][columns].add_prefix("other_").reset_index(drop=True)
    return pd.concat([left, right], axis=1)


def first_two(pairs: pd.DataFrame, key: str, value: str) -> pd.DataFrame:
    """Return, for every key that has several values, the rows of the first two of them and all values.

    `pairs` has the columns key, value and `row`. The result has the columns key, `row`, `other_row` and
    `values`, the values joined by a plus sign.
    """
    distinct = pairs.drop_duplicates([key, value])
    several = distinct[distinct[key].duplicated(keep=False)].sort_values([key, value, "row"], kind="stable")
    if several.empty:
        return pd.DataFrame({key: [], "row": [], "other_row": [], "values": []}, dtype="int64")
    places = several.groupby(key).cumcount()
    first, second = (several[places == place].set_index(key) for place in (0, 1))
    texts = first[value].astype(str) + "+" + second[value].astype(str)
    for place in range(2, int(places.max()) + 1):
        later = several[places == place].set_index(key)[value].astype(str)
        texts[later.index] += "+" + later
    return pd.DataFrame({"row": first["row"], "other_row": second["row"], "values": texts}).reset_index()


def _copies(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose content is there more than once, with their number in the column `row`."""
    number = frame["copy"].to_numpy()
    rows = np.flatnonzero(np.bincount(number)[number] > 1)
    return frame[_KEYS].iloc[rows].assign(row=rows)


def _differing(copies: pd.DataFrame, frame: pd.DataFrame, column: str) -> Finding:
    """Return the contents that differ in a column, counted by the first one's domain and by the values."""
    found = first_two(copies[["copy", column, "row"]], "copy", column)
    if found.empty:
        return Finding(0)
    parts = frame.iloc[found["row"]][["domain"]].reset_index(drop=True)
    if column != "label":
        parts[f"{column}s"] = found["values"]
    # Of several domains, that of the first says nothing more.
    parts = parts.drop(columns="domain") if column == "domain" else parts
    shown = found.iloc[spread(np.arange(len(found)))]
    examples = pairs_of(frame, shown["row"].to_numpy(), shown["other_row"].to_numpy())
    return Finding(len(found), examples, tally(parts, "contents"))


def _beyond_first(copies: pd.DataFrame, keys: list[str], frame: pd.DataFrame) -> Finding:
    if copies.empty:
        return Finding(0)
    first = copies.groupby(keys, observed=True, sort=False)["row"].transform("first")
    later = copies.assign(first=first)[copies["row"] != first]
    rows = later["row"].to_numpy()
    chosen = spread(np.arange(len(rows)))
    examples = pairs_of(frame, later["first"].to_numpy()[chosen], rows[chosen])
    return Finding(len(rows), examples, tally(frame.iloc[rows][list(PART)], "files"))


def _near(frame: pd.DataFrame, column: str) -> Finding:
    other = frame[column].to_numpy()
    rows = np.flatnonzero(other >= 0)
    if not len(rows):
        return Finding(0)
    groups = frame["group"].to_numpy()
    ends = np.sort(np.stack([groups[rows], groups[other[rows]]]), axis=0)
    # One example for each two videos.
    distinct = np.sort(np.unique(ends, axis=1, return_index=True)[1])
    shown = rows[distinct[spread(np.arange(len(distinct)))]]
    examples = pairs_of(frame, shown, other[shown])
    bits = frame["phash"].to_numpy()
    examples["bits"] = np.bitwise_count(bits[shown] ^ bits[other[shown]])
    return Finding(len(rows), examples, tally(frame.iloc[rows][list(PART)], "files"))
