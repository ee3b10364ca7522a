"""Detections as lines of text for a terminal."""

import math
from collections.abc import Iterator
from pathlib import Path

from r2m.detection.detecting import Detection
from r2m.detection.drift import LEAST, Drift
from r2m.models.decision import Decision
from r2m.terminal import printable

LEVELS = "▁▂▃▄▅▆▇█"
WIDEST = len("unsure")


def lines_of(detection: Detection, width: int) -> Iterator[str]:
    """Yield the lines of a file, whose name takes `width` columns: the decision, the probability, and whose.

    What is not called real has the specialist that responds most, where specialists were asked. A video has
    the curve of its probabilities over time. Nothing in a line tells a terminal to do anything.
    """
    name = f"{shown(detection.path):<{width}}"
    if not detection.faces:
        yield f"{name}  {'–':<{WIDEST}}  {printable(detection.reason)}"
        return
    is_video = detection.faces[0].seconds is not None
    several = len(detection.numbers) > 1
    for number in detection.numbers:
        probability = detection.mean(number)
        told = [f"{name}  {detection.decided(probability):<{WIDEST}}  {probability:.3f}"]
        if like := detection.closest_to(detection.of(number)):
            told.append(f"like {printable(like[0])} {like[1]:.2f}")
        if several:
            told.append(f"face {number}")
        if is_video:
            told.append(curve([face.probability for face in detection.of(number)]))
        yield "  ".join(told)
        name = " " * width


def shown(path: Path) -> str:
    """Return the name of a file as lines have it."""
    return printable(str(path))


def curve(probabilities: list[float]) -> str:
    """Return probabilities in [0, 1] as bars, one for each."""
    return "".join(LEVELS[min(math.floor(value * len(LEVELS)), len(LEVELS) - 1)] for value in probabilities)


def drift_line(drift: Drift) -> str:
    """Return what to tell of a comparison with val's reals, a warning where files differ from them."""
    if not drift.is_told:
        return (
            f"whether files differ from the real photographs of val cannot be told: {drift.files} are"
            f" scored, and val has {drift.reals}; expected {LEAST} of both"
        )
    told = f"Kolmogorov–Smirnov {drift.statistic:.2f}, p = {drift.p_value:.2g}"
    if not math.isnan(drift.shift):
        direction = "higher" if drift.shift >= 0 else "lower"
        told += f"; the median logit is {abs(drift.shift):.2f} standard deviations {direction}"
    if not drift.is_found:
        return f"{drift.files} files do not differ from the real photographs of val ({told})"
    return (
        f"warning: {drift.files} files differ from the real photographs of val ({told}): there are fakes"
        " among them, or photographs on which false positive rates do not hold"
    )


def unfitted_line(model: Path, rule: Decision) -> str:
    """Return the warning that nothing of how a model decides was fitted on val."""
    return (
        f"warning: {shown(model)}: no calibration and no operating points in it; decisions are made at"
        f" probability {rule.threshold:g} of scores that are not calibrated"
    )
