"""Explanations as files: for every face of a file the relevance map over the photograph or frame."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from r2m.detection.detecting import Detection
from r2m.detection.explaining import relevance_maps
from r2m.detection.finding import Face, FaceFinder, Seen
from r2m.detection.overlay import overlaid, overlay_path, write_overlay
from r2m.models.image_detector import ImageDetector


def write_explanations(
    seen: Seen, detection: Detection, detector: ImageDetector, finder: FaceFinder, stem: Path
) -> list[Path]:
    """Write an image for every person on a file, and return the paths, which begin with `stem`.

    Of a video it is the frame of the greatest probability. The photograph or frame is read again, one at a
    time, so that none has to be kept.

    Raises:
        R2MError: the file cannot be read any more, or the detector's backbone has no maps.
        OSError: an image cannot be written.
    """
    faces = list(most_fake(seen, detection))
    rgb = [np.ascontiguousarray(face.crop[..., ::-1]) for face in faces]
    paths = []
    for face, relevance in zip(faces, relevance_maps(detector, rgb), strict=True):
        path = overlay_path(stem, face.number)
        write_overlay(path, overlaid(finder.picture(seen.path, face), relevance, face.matrix))
        paths.append(path)
    return paths


def most_fake(seen: Seen, detection: Detection) -> Iterator[Face]:
    """Yield of every person the face with the greatest probability of being fake, the first of several."""
    pairs = list(zip(seen.faces, detection.faces, strict=True))
    for number in detection.numbers:
        own = [pair for pair in pairs if pair[0].number == number]
        yield max(own, key=lambda pair: pair[1].probability)[0]
