"""A miniature of DF40 with its reals: frames of videos as aligned crops on disk, and the index of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from r2m.index import table

# Videos of FaceForensics++ by split, each of one person, and those of Celeb-DF.
FF = {
    "train": ("000", "001", "002", "003"),
    "val": ("004", "005"),
    "test": ("006", "007", "008", "009"),
}
CDF = ("id0_0000", "id1_0000", "id2_0000", "id3_0000")
FRAMES = (0, 7, 14, 21)


@dataclass(frozen=True)
class Video:
    """A video of an index, and the folder of its frames."""

    folder: str
    name: str
    method: str = "real"
    family: str = "real"
    domain: str = "ff"
    split: str = "test"
    people: tuple[str, ...] = ()

    def rows(self, frames: Iterable[int] = FRAMES, **changes: Any) -> list[dict[str, Any]]:
        """Return the rows of the video's frames."""
        first, second = (*self.people, None, None)[:2]
        return [
            {
                "path": f"{self.folder}/{self.name}/{frame:03}.png",
                "label": int(self.method != "real"),
                "method": self.method,
                "family": self.family,
                "domain": self.domain,
                "dataset": "DF40",
                "video": self.name,
                "frame": frame,
                "media": "image",
                "identity": first,
                "identity2": second,
                "split": self.split,
                "split_by": "official",
                "compression": "c23",
                "mask": None,
                "size": 1000,
                **changes,
            }
            for frame in frames
        ]


def reals() -> list[Video]:
    """Return the reals of both domains."""
    ff = [
        Video("FaceForensics++/frames", name, split=split, people=(name,))
        for split, names in FF.items()
        for name in names
    ]
    return ff + [
        Video("Celeb-DF-v2/Celeb-real/frames", name, domain="cdf", people=(name.split("_")[0],))
        for name in CDF
    ]


def swapped(method: str, family: str = "FS") -> list[Video]:
    """Return fakes of pairs of people in both domains: every person in turn with the next of the split."""
    videos = []
    for split, names in FF.items():
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            videos.append(
                Video(
                    f"DF40/{method}/ff/frames", f"{name}_{other}", method, family, "ff", split, (name, other)
                )
            )
    people = [name.split("_")[0] for name in CDF]
    for person, other in zip(people, people[1:] + people[:1], strict=True):
        name = f"{person}_{other}_0000"
        videos.append(
            Video(f"DF40/{method}/cdf/frames", name, method, family, "cdf", "test", (person, other))
        )
    return videos


def synthesized(method: str) -> list[Video]:
    """Return fakes of an entire synthesis, called after the real videos of both domains."""
    return [
        Video(f"DF40/{method}/{real.domain}", real.name, method, "EFS", real.domain, real.split, real.people)
        for real in reals()
    ]


def alone(method: str, family: str = "FS") -> list[Video]:
    """Return fakes of a method that is tested only, with reals of its own."""
    names = ("a", "b", "c")
    return [
        *(Video(f"DF40/{method}/real", name, domain=method, people=(name,)) for name in names),
        *(Video(f"DF40/{method}/fake", name, method, family, method, "test", (name,)) for name in names),
    ]


def rows_of(videos: Iterable[Video], rows: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return the rows of videos, and some more, in the order of an index."""
    every = [row for video in videos for row in video.rows()] + list(rows)
    return sorted(
        every,
        key=lambda row: (
            *(row["domain"], row["label"], row["method"], row["video"] or "", row["frame"] or 0, row["path"]),
        ),
    )


def write_index(
    path: Path, root: Path, videos: Iterable[Video], rows: Iterable[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Write the index of the frames of videos, and of some more rows; return its rows."""
    every = rows_of(videos, rows)
    write_rows(path, root, every)
    return every


def write_rows(path: Path, root: Path, rows: list[dict[str, Any]]) -> None:
    """Write an index of rows that are in its order."""
    metadata = {
        "version": 1,
        "root": root.as_posix(),
        "roots": [],
        "layouts": ["df40"],
        "seed": 0,
        "shares": {},
    }
    table.write(pa.Table.from_pylist(rows, schema=table.SCHEMA), metadata, path)


def draw(root: Path, rows: Iterable[dict[str, Any]], size: int = 32) -> None:
    """Draw the images of rows that are not there yet: blots and noise, and on fakes a bright square."""
    for row in rows:
        path = root / row["path"]
        if path.exists():
            continue
        rng = np.random.default_rng([*row["path"].encode()])
        blots = rng.integers(30, 200, (4, 4, 3)).astype(np.uint8)
        image = cv2.resize(blots, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image = np.clip(image + rng.integers(-20, 20, image.shape), 0, 255).astype(np.uint8)
        if row["label"]:
            image[size // 4 : size // 2, size // 4 : size // 2] = 230
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
