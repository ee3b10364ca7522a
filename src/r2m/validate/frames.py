"""Checks of what videos and images are like: numbers of frames, and shape."""

import numpy as np
import pandas as pd

from r2m.validate.check import PART, Finding, of_files, spread

# A video has few or many frames if its number and the median of its part differ by a larger factor.
UNEVEN = 2
# The longer side over the shorter one, of an image that is about square.
SQUARE = 1.1


def uneven_frames(frame: pd.DataFrame) -> Finding:
    """Find videos that have far fewer or far more frames than the median of their part."""
    keys = [*PART, "label"]
    frames = frame[(frame["media"] == "image") & (frame["video_id"] >= 0)]
    if frames.empty:
        return Finding(0)
    grouped = frames.assign(row=frames.index.to_numpy()).groupby([*keys, "video_id"], observed=True)
    videos = grouped["row"].agg(["size", "first"]).reset_index()
    videos["median"] = videos.groupby(keys, observed=True)["size"].transform("median")
    ratio = videos["size"] / videos["median"]
    videos["uneven"] = (ratio > UNEVEN) | (ratio < 1 / UNEVEN)
    parts = videos.groupby(keys, observed=True).agg(
        videos=("size", "size"),
        uneven=("uneven", "sum"),
        least=("size", "min"),
        median=("size", "median"),
        most=("size", "max"),
    )
    wrong = np.flatnonzero(videos["uneven"])
    shown = videos.iloc[spread(wrong)]
    examples = frame.iloc[shown["first"]][["path", *keys, "video"]].reset_index(drop=True)
    examples = examples.assign(frames=shown["size"].to_numpy(), median=shown["median"].to_numpy())
    return Finding(len(wrong), examples, parts[parts["uneven"] > 0].reset_index())


def oblong(frame: pd.DataFrame) -> Finding:
    """Find images that are not about square, as aligned crops are."""
    width, height = frame["width"].to_numpy(), frame["height"].to_numpy()
    is_known = (frame["media"] == "image").to_numpy() & (height > 0)
    ratio = np.maximum(width, height) / np.maximum(np.minimum(width, height), 1)
    return of_files(frame, is_known & (ratio > SQUARE), ["width", "height"])
