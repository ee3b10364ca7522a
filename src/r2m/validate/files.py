"""Checks of files: whether they are there, and can be read."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.data.images import BLANK
from r2m.data.intake import reason_of
from r2m.validate.check import PART, Finding, of_files, tally

ROOT_IS_WRONG = (
    "No file of the index is there, so the root is probably wrong: give the folder that its paths are"
    " relative to (`root:`, `--root FOLDER`), or mount the disk that the files are on."
)


def missing(frame: pd.DataFrame) -> Finding:
    """Find files that are not there, and tell of how many videos all are gone."""
    is_missing = ~frame["present"].to_numpy()
    finding = of_files(frame, is_missing, by=(*PART, "label"))
    if not finding.count:
        return finding
    keys = [*PART, "label"]
    videos = frame.loc[frame["video_id"] >= 0, [*keys, "video_id", "present"]]
    is_any = videos.groupby([*keys, "video_id"], observed=True)["present"].any()
    whole = (~is_any).groupby(level=keys, observed=True).sum().rename("whole videos").reset_index()
    where = finding.where.merge(whole, on=keys, how="left")
    where["whole videos"] = where["whole videos"].fillna(0).astype(int)
    advice = ROOT_IS_WRONG if is_missing.all() else ""
    return Finding(finding.count, finding.examples, where, advice)


def empty(frame: pd.DataFrame) -> Finding:
    """Find files without a byte; where contents were not read, those that had none when they were indexed."""
    size = frame["disk_size" if "disk_size" in frame else "size"]
    return of_files(frame, (size == 0).to_numpy() & frame["present"].to_numpy())


def unreadable(frame: pd.DataFrame) -> Finding:
    """Find images and videos that cannot be decoded, or whose size or levels cannot be used."""
    is_wrong = (frame["problem"] != "").to_numpy(dtype=bool) & (frame["disk_size"] != 0).to_numpy()
    return _with_reasons(frame, is_wrong & ~_is_blank(frame))


def blank(frame: pd.DataFrame) -> Finding:
    """Find images that show nothing, such as a black frame at the end of a video."""
    return _with_reasons(frame, _is_blank(frame))


def _is_blank(frame: pd.DataFrame) -> NDArray[np.bool_]:
    return frame["problem"].str.startswith(BLANK).to_numpy(dtype=bool)


def _with_reasons(frame: pd.DataFrame, is_wrong: NDArray[np.bool_]) -> Finding:
    if not is_wrong.any():
        return Finding(0)
    finding = of_files(frame, is_wrong, ["problem"])
    reasons = frame.loc[is_wrong, "problem"].map(reason_of)
    where = tally(frame.loc[is_wrong, list(PART)].assign(reason=reasons), "files")
    return Finding(finding.count, finding.examples, where)


def size_changed(frame: pd.DataFrame) -> Finding:
    """Find files that have another size than when they were indexed."""
    differs = (frame["disk_size"] >= 0) & (frame["disk_size"] != frame["size"])
    return of_files(frame, differs.to_numpy(), ["size", "disk_size"])


def missing_masks(frame: pd.DataFrame) -> Finding:
    """Find masks that are not there."""
    return of_files(frame, ~frame["mask_present"].to_numpy(), ["mask"])


def repeated_rows(frame: pd.DataFrame) -> Finding:
    """Find files that stand in several rows, beyond the first."""
    return of_files(frame, frame["path"].duplicated().to_numpy())
