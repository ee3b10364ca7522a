"""Detections as lines of text for a terminal."""

import math
from collections.abc import Iterator

from r2m.detection.detecting import Detection

LEVELS = "▁▂▃▄▅▆▇█"


def lines_of(detection: Detection, width: int) -> Iterator[str]:
    """Yield the lines of a file, whose name takes `width` columns: the decision, the probability, and whose.

    A video has the curve of its probabilities over time.
    """
    name = f"{detection.path!s:<{width}}"
    if not detection.faces:
        yield f"{name}  –     {detection.reason}"
        return
    is_video = detection.faces[0].seconds is not None
    several = len(detection.numbers) > 1
    for number in detection.numbers:
        probability = detection.mean(number)
        told = [f"{name}  {detection.decided(probability)}  {probability:.3f}"]
        if several:
            told.append(f"face {number}")
        if is_video:
            told.append(curve([face.probability for face in detection.of(number)]))
        yield "  ".join(told)
        name = " " * width


def curve(probabilities: list[float]) -> str:
    """Return probabilities in [0, 1] as bars, one for each."""
    return "".join(LEVELS[min(math.floor(value * len(LEVELS)), len(LEVELS) - 1)] for value in probabilities)
