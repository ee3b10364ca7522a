"""Small pictures of images and videos, for the report."""

import base64
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import pandas as pd

from r2m.data.images import read_image
from r2m.validate.contents import first_frame
from r2m.validate.report import Report

SIDE = 88
QUALITY = 70
SAMPLES = 6  # images shown of every generator and domain
SHOWN = 8  # examples of a check that have pictures


def samples(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a few rows of each domain, label and method that can be read, evenly spaced over them."""
    readable = frame.loc[frame["digest"] != "", ["path", "media", "domain", "label", "method", "family"]]
    grouped = readable.groupby(["domain", "label", "method"], observed=True)
    place, size = grouped.cumcount(), grouped["path"].transform("size")
    step = place * SAMPLES // size
    return readable[(place == 0) | (step != (place - 1) * SAMPLES // size)]


def draw(root: Path, frame: pd.DataFrame, report: Report, shown: pd.DataFrame) -> dict[str, str]:
    """Return path → data URI of a JPEG, for the first examples of each check and the samples `shown`."""
    paths = dict.fromkeys([*_paths_of_examples(report), *shown["path"]])
    videos = set(frame.loc[frame["media"] == "video", "path"])
    pictures = {path: _picture(os.path.join(root, path), path in videos) for path in paths}
    return {path: picture for path, picture in pictures.items() if picture}


def _paths_of_examples(report: Report) -> Iterable[str]:
    for result in report.found():
        assert result.finding is not None
        examples = result.finding.examples.head(SHOWN)
        for name in ("path", "other_path"):
            if name in examples:
                yield from examples[name]


def _picture(path: str, is_video: bool) -> str:
    """Return a file as a small JPEG in a data URI; empty if it cannot be read."""
    try:
        image = first_frame(path) if is_video else read_image(Path(path))[0]
    except ValueError:
        return ""
    scale = SIDE / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, (width, height), interpolation=interpolation)
    _, buffer = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.tobytes()).decode()}"
