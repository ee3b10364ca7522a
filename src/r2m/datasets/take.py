"""From rows of an index to rows of a manifest: splits, frames, names, people, and reals behind fakes."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from r2m.data.naming import people_of
from r2m.datasets.slices import Splits
from r2m.video.sample import spread

# Of a video of which several faces were followed.
_TRACK = re.compile(r"/track\d+$")


def with_splits(rows: pd.DataFrame, splits: Splits) -> pd.DataFrame:
    """Return the rows of an index (column `split`) that are taken, with the split that they have then."""
    if splits == "all":
        return rows
    tested = rows[rows["split"] == "test"]
    if tested.empty and splits == "test_if_any":
        return rows.assign(split="test")
    return tested


def sampled(rows: pd.DataFrame, frames: int | None) -> pd.DataFrame:
    """Return at most `frames` rows a video, evenly over all of it by frame; images of no video all stay.

    `rows` are of one slice, with the columns video, frame and path. The order of the rows is kept.
    """
    ordered = rows.assign(place=np.arange(len(rows))).sort_values(["frame", "path"], kind="stable")
    kept = [ordered.loc[ordered["video"].isna(), "place"].to_numpy()]
    for places in ordered.groupby("video", sort=False)["place"]:
        inside = places[1].to_numpy()
        kept.append(inside[spread(len(inside), frames)])
    return rows.iloc[np.sort(np.concatenate(kept))]


def stem_of(path: str) -> str:
    """Return a relative path without its suffix."""
    return Path(path).with_suffix("").as_posix()


def image_rows(rows: pd.DataFrame, prefix: str, root: Path) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return rows of images of an index with image_id (`prefix`/path without suffix) and their whole path.

    Of images that are named alike but for the suffix the first is kept; the others come as (path, reason).
    """
    named = rows.assign(
        image_id=[f"{prefix}/{stem_of(path)}" for path in rows["path"]],
        path=[(root / path).as_posix() for path in rows["path"]],
    )
    again = named["image_id"].duplicated()
    first = dict(zip(named["image_id"][~again], named["path"][~again], strict=True))
    skipped = [
        (path, f"named like another image but for the suffix: {first[image_id]}")
        for path, image_id in zip(named["path"][again], named["image_id"][again], strict=True)
    ]
    return named[~again], skipped


def identities(rows: pd.DataFrame, owner: str | None = None) -> list[str]:
    """Return who is on each row: the identity of the index, or else the video, or else the image.

    People of a domain that an `owner` (a generator) brings are called after it: they are nobody else's.
    """
    names = rows["identity"].astype(object).where(rows["identity"].notna(), rows["video"].astype(object))
    names = names.where(names.notna(), rows["image_id"])
    return [f"{owner}/{name}" if owner else str(name) for name in names]


def sources(fakes: pd.DataFrame, reals: pd.DataFrame) -> list[str | None]:
    """Return the image_id of the real behind each fake, None where it is not known (N,).

    It is the same frame of the real video that the fake's video is called after (`A_B` is made from `A`), or
    the nearest frame of it that there is, of equals the first. Of a video of which several faces were
    followed, it is the face that was followed under the same number, or any where that is not there. Both
    tables have image_id, domain, video and frame; `reals` are rows of a manifest.
    """
    frames: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    known = reals[reals["video"].notna() & reals["frame"].notna()]
    known = known.assign(
        base=[_TRACK.sub("", video) for video in known["video"]], frame=known["frame"].astype(np.int64)
    ).sort_values(["frame", "image_id"])
    for name in ("base", "video"):
        for (domain, video), inside in known.groupby(["domain", name], sort=False):
            frames[str(domain), str(video)] = inside["frame"].to_numpy(), inside["image_id"].to_numpy(object)
    found: list[str | None] = []
    for domain, video, frame in zip(fakes["domain"], fakes["video"], fakes["frame"], strict=True):
        behind = None
        if isinstance(video, str) and not pd.isna(frame):
            track = _TRACK.search(video)
            base = people_of(_TRACK.sub("", video), "fake")[1]
            behind = frames.get((domain, base + track[0])) if track else None
            behind = frames.get((domain, base)) if behind is None else behind
        if behind is None:
            found.append(None)
            continue
        numbers, images = behind
        found.append(str(images[np.abs(numbers - int(frame)).argmin()]))
    return found


def with_splits_of_people(
    fakes: pd.DataFrame, split_of: Mapping[tuple[str, str], str], is_trained: bool
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return the fakes of people whom reals show in the split of these, and (path, reason) of the others.

    `split_of` is (domain, identity) → split. A fake of two people in different splits cannot be used, nor can
    one of a person outside of `test` where the generator is not trained on.
    """
    first, second = (
        [
            split_of.get((domain, person)) if isinstance(person, str) else None
            for domain, person in zip(fakes["domain"], fakes[key], strict=True)
        ]
        for key in ("identity", "identity2")
    )
    split = [own or listed for own, listed in zip(first, fakes["split"], strict=True)]
    reasons: list[str | None] = []
    for own, other, person in zip(split, second, fakes["identity2"], strict=True):
        reason = None
        if other is not None and other != own:
            reason = f"people of different splits are on it: {own!r} and {other!r} ({person})"
        elif not is_trained and own != "test":
            reason = f"an unseen generator is tested only, and this person is in the split {own!r}"
        reasons.append(reason)
    usable = np.array([reason is None for reason in reasons], dtype=bool)
    skipped = [(path, reason) for path, reason in zip(fakes["path"], reasons, strict=True) if reason]
    return fakes.assign(split=split)[usable], skipped
