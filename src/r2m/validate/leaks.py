"""Checks of splits: nobody and no video stands in two of them."""

import numpy as np
import pandas as pd

from r2m.validate.check import PART, Finding, of_files, spread, tally
from r2m.validate.copies import first_two, pairs_of


def people_across_splits(frame: pd.DataFrame) -> Finding:
    """Find people who are in several splits, be it as the first or as the second of a pair."""
    seen = frame[["person", "person2", "split"]].assign(row=np.arange(len(frame)))
    distinct = seen.drop_duplicates(["person", "person2", "split"])
    people = pd.concat(
        [distinct[[name, "split", "row"]].rename(columns={name: "person"}) for name in ("person", "person2")]
    )
    people = people[people["person"] >= 0].sort_values(["row", "person"], kind="stable")
    found = first_two(people, "person", "split")
    if found.empty:
        return Finding(0)
    shown = found.iloc[spread(np.arange(len(found)))]
    examples = pairs_of(frame, shown["row"].to_numpy(), shown["other_row"].to_numpy())
    rows = frame.iloc[shown["row"]]
    is_first = rows["person"].to_numpy() == shown["person"].to_numpy()
    first, second = (rows[name].astype("object").to_numpy() for name in ("identity", "identity2"))
    examples.insert(0, "person", np.where(is_first, first, second))
    return Finding(len(found), examples, _where(frame, found, ["domain"], "people"))


def videos_across_splits(frame: pd.DataFrame) -> Finding:
    """Find videos with frames in several splits."""
    seen = frame.loc[frame["video_id"] >= 0, ["video_id", "split"]]
    found = first_two(seen.assign(row=seen.index.to_numpy()), "video_id", "split")
    if found.empty:
        return Finding(0)
    shown = found.iloc[spread(np.arange(len(found)))]
    examples = pairs_of(frame, shown["row"].to_numpy(), shown["other_row"].to_numpy())
    examples.insert(0, "video", frame["video"].iloc[shown["row"]].astype("object").to_numpy())
    return Finding(len(found), examples, _where(frame, found, ["domain", "method"], "videos"))


def unknown_people(frame: pd.DataFrame) -> Finding:
    """Find files of which nobody says who is seen."""
    return of_files(frame, (frame["person"] < 0).to_numpy() & (frame["person2"] < 0).to_numpy(), by=PART)


def _where(frame: pd.DataFrame, found: pd.DataFrame, columns: list[str], unit: str) -> pd.DataFrame:
    """Return how many of the found keys each part has in which splits, and who made these splits."""
    rows = frame.iloc[found["row"]][[*columns, "split_by"]].reset_index(drop=True)
    return tally(rows.assign(splits=found["values"].to_numpy()), unit)
