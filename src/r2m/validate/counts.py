"""How many images and videos there are, by generator, family, domain, split and label."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from r2m.manifest import SPLITS
from r2m.validate.labels import sizes

TABLES = {
    "generators": ("domain", "method", "family", "label", "split"),
    "families": ("family", "split"),
    "domains": ("domain", "label", "split"),
    "datasets": ("dataset", "label", "split"),
    "splits": ("split", "label"),
    "labels": ("label",),
}
MOST_SIZES = 20


def count(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return numbers of images, video files and videos (distinct ones) by `keys`."""
    names = list(keys)
    is_image = frame["media"] == "image"
    grouped = frame[names].assign(images=is_image).groupby(names, observed=True, sort=True)
    counts = grouped["images"].agg(["sum", "size"])
    distinct = frame.loc[frame["video_id"] >= 0, [*names, "video_id"]].drop_duplicates()
    videos = distinct.groupby(names, observed=True, sort=True).size().reindex(counts.index, fill_value=0)
    return (
        pd.DataFrame(
            {"images": counts["sum"], "video_files": counts["size"] - counts["sum"], "videos": videos}
        )
        .astype("int64")
        .reset_index()
    )


def count_all(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return `count` for every entry of `TABLES`."""
    return {name: count(frame, keys) for name, keys in TABLES.items()}


def count_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """Return how many images and videos have each of the most frequent sizes, by label; others together."""
    known = frame[frame["width"] > 0]
    table = pd.crosstab(sizes(known).astype("object"), known["label"]).reindex(columns=[0, 1], fill_value=0)
    table.columns = pd.Index(["real", "fake"])
    table = table.iloc[np.argsort(-table.sum(axis=1).to_numpy(), kind="stable")]
    most, others = table.iloc[:MOST_SIZES], table.iloc[MOST_SIZES:]
    if len(others):
        most = pd.concat([most, others.sum().to_frame(f"{len(others)} other sizes").T])
    return most.rename_axis("size").reset_index()


def by_split(counts: pd.DataFrame) -> pd.DataFrame:
    """Return counts with the splits beside each other, as readers see them: files, and videos if any."""
    keys = [name for name in counts if name not in {"split", "images", "video_files", "videos"}]
    files = counts.assign(files=counts["images"] + counts["video_files"])
    measures = ["files", *(["videos"] if counts["videos"].any() else [])]
    if "split" not in counts:
        return files[[*keys, *measures]]
    wide = files.assign(split=files["split"].astype("object"))
    if not keys:
        return wide[["split", *measures]]
    table = wide.pivot_table(
        index=keys, columns="split", values=measures, fill_value=0, observed=True, aggfunc="sum"
    )
    columns = [(measure, split) for split in SPLITS for measure in measures]
    table = table.reindex(columns=pd.MultiIndex.from_tuples(columns), fill_value=0).astype("int64")
    table.columns = pd.Index(
        [split if measure == "files" else f"{split} videos" for measure, split in columns]
    )
    return table.reset_index()
