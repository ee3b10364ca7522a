"""What a detector says of photographs and videos: face by face, and of a video as a whole."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from r2m.detection.finding import Face, FaceFinder, Seen, face_network
from r2m.detection.listing import files_of
from r2m.models.decision import Decision
from r2m.models.image_detector import BATCH, ImageDetector
from r2m.models.read_ahead import read_ahead


@dataclass(frozen=True)
class ScoredFace:
    """A face and the probability of being fake that its logit says; `seconds` is None on a photograph."""

    number: int
    box: tuple[int, int, int, int]
    seconds: float | None
    logit: float
    probability: float


@dataclass(frozen=True)
class Detection:
    """What was seen in a file and what the detector says of it.

    Attributes:
        path: the file.
        rule: how the detector decides.
        faces: its faces, by number and time; in a video one for every frame that shows it.
        reason: why there is no face, empty where there is one.
    """

    path: Path
    rule: Decision
    faces: list[ScoredFace] = field(default_factory=list)
    reason: str = ""

    @property
    def numbers(self) -> list[int]:
        """Whose faces there are, the largest first."""
        return sorted({face.number for face in self.faces})

    def of(self, number: int) -> list[ScoredFace]:
        """Return the faces of one person, by time."""
        return [face for face in self.faces if face.number == number]

    def mean(self, number: int) -> float:
        """Return the mean probability of one person's faces."""
        return float(np.mean([face.probability for face in self.of(number)]))

    @property
    def probability(self) -> float:
        """Probability of the file: of several persons that of the one that looks most like a fake; or NaN."""
        return max(map(self.mean, self.numbers), default=float("nan"))

    def decided(self, probability: float) -> str:
        """Return `fake`, `real` or `unsure`."""
        return self.rule.call(probability)

    @property
    def decision(self) -> str:
        """`fake`, `real` or `unsure`, empty without a face."""
        return self.decided(self.probability) if self.faces else ""


def detect(
    paths: Iterable[Path],
    detector: ImageDetector,
    finder: FaceFinder,
    *,
    batch_size: int = BATCH,
    threads: int = 1,
) -> Iterator[Detection]:
    """Yield what `detector` says of each file, in order; a file that cannot be scored tells why not.

    Memory is that of `seen_and_scored`.
    """
    found = seen_and_scored(paths, detector, finder, batch_size=batch_size, threads=threads)
    yield from (detection for _, detection in found)


def seen_and_scored(
    paths: Iterable[Path],
    detector: ImageDetector,
    finder: FaceFinder,
    *,
    batch_size: int = BATCH,
    threads: int = 1,
) -> Iterator[tuple[Seen, Detection]]:
    """Yield what is seen in each file and what `detector` says of it, in order; the faces are the same.

    Faces are found in `threads` threads ahead of the detector, and scored in batches across files, so that
    memory depends on neither the number of files nor the length of videos.
    """
    cv2.setNumThreads(1)  # files are looked at in as many threads
    waiting: list[Seen] = []
    for seen in read_ahead(finder, paths, threads):
        waiting.append(seen)
        if max(len(waiting), sum(len(one.faces) for one in waiting)) >= batch_size:
            yield from _scored(waiting, detector, batch_size)
            waiting = []
    yield from _scored(waiting, detector, batch_size)


def _scored(
    seen: Sequence[Seen], detector: ImageDetector, batch_size: int
) -> Iterator[tuple[Seen, Detection]]:
    faces: list[Face] = [face for one in seen for face in one.faces]
    rgb = [np.ascontiguousarray(face.crop[..., ::-1]) for face in faces]
    logits = detector.logits(rgb, batch_size) if rgb else np.zeros(0, np.float32)
    said = zip(logits.tolist(), detector.config.probabilities(logits).tolist(), strict=True)
    for one in seen:
        scored = [ScoredFace(face.number, face.box, face.seconds, *next(said)) for face in one.faces]
        yield one, Detection(one.path, detector.config, scored, one.reason)


def detect_all(
    paths: str | Path | Iterable[str | Path],
    detector: ImageDetector,
    *,
    faces: str | Path | None = "data/raw/faces",
    every: bool = False,
    frames: int = 32,
) -> list[Detection]:
    """Return what a detector says of photographs, videos, and those in folders.

    `faces` is the folder with the face detector, or None where images are aligned crops already. `every`
    takes all faces, not the largest alone; `frames` of a video are looked at, at most.

    Raises:
        R2MError: a path that is not there, or no face detector. A file that cannot be scored does not stop
            the others: its `reason` says why.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    network = None if faces is None else face_network(Path(faces))
    finder = FaceFinder(detector.config, network, every=every, frames=frames)
    threads = torch.get_num_threads()
    return list(detect(files_of(map(Path, given)), detector, finder, threads=threads))
