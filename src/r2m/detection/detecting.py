"""What a detector says of photographs and videos: face by face, and of a video as a whole."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import torch

from r2m.detection.finding import Face, FaceFinder, HeldImage, Seen, face_network
from r2m.detection.given import listed, media_of
from r2m.models.decision import Decision
from r2m.models.image_detector import BATCH, ImageDetector, ImageLike, require_detector
from r2m.models.read_ahead import read_ahead


@dataclass(frozen=True)
class ScoredFace:
    """A face and the probability of being fake that its logit says; `seconds` is None on a photograph.

    `responses` has the probabilities that specialists give it, by name, where they were asked.
    """

    number: int
    box: tuple[int, int, int, int]
    seconds: float | None
    logit: float
    probability: float
    responses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Detection:
    """What was seen in a file and what the detector says of it.

    Attributes:
        path: the file; of an image in memory `image N`, N its place among what was given.
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
    def foremost(self) -> list[ScoredFace]:
        """The faces of the person who looks most like a fake."""
        return self.of(max(self.numbers, key=self.mean)) if self.faces else []

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

    def closest_to(self, faces: Sequence[ScoredFace]) -> tuple[str, float] | None:
        """Return the specialist that responds most to faces of one person, and its mean probability.

        None where they are called real, or no specialist was asked.
        """
        if not faces or self.decided(float(np.mean([face.probability for face in faces]))) == "real":
            return None
        means = {
            name: float(np.mean([face.responses[name] for face in faces])) for name in faces[0].responses
        }
        return max(means.items(), key=itemgetter(1), default=None)

    @property
    def closest(self) -> tuple[str, float] | None:
        """The specialist that the file is closest to, by its foremost person, and that one's probability."""
        return self.closest_to(self.foremost)


def detect(
    paths: Iterable[Path | HeldImage],
    detector: ImageDetector,
    finder: FaceFinder,
    *,
    specialists: Mapping[str, ImageDetector] | None = None,
    batch_size: int = BATCH,
    threads: int = 1,
) -> Iterator[Detection]:
    """Yield what `detector` says of each file, in order; a file that cannot be scored tells why not.

    `specialists` are asked of the faces of files in which a face is not called real. Memory is that of
    `seen_and_scored`.
    """
    found = seen_and_scored(
        paths, detector, finder, specialists=specialists, batch_size=batch_size, threads=threads
    )
    yield from (detection for _, detection in found)


def seen_and_scored(
    paths: Iterable[Path | HeldImage],
    detector: ImageDetector,
    finder: FaceFinder,
    *,
    specialists: Mapping[str, ImageDetector] | None = None,
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
            yield from _scored(waiting, detector, specialists or {}, batch_size)
            waiting = []
    yield from _scored(waiting, detector, specialists or {}, batch_size)


def _scored(
    seen: Sequence[Seen], detector: ImageDetector, specialists: Mapping[str, ImageDetector], batch_size: int
) -> Iterator[tuple[Seen, Detection]]:
    faces: list[Face] = [face for one in seen for face in one.faces]
    rgb = [np.ascontiguousarray(face.crop[..., ::-1]) for face in faces]
    logits = detector.logits(rgb, batch_size) if rgb else np.zeros(0, np.float32)
    probabilities = detector.config.probabilities(logits)
    file = np.repeat(np.arange(len(seen)), [len(one.faces) for one in seen])
    is_called = np.array([detector.config.call(value) != "real" for value in probabilities], dtype=bool)
    asked = np.flatnonzero(np.isin(file, file[is_called]))
    responses: list[dict[str, float]] = [{} for _ in faces]
    for name, specialist in specialists.items() if len(asked) else ():
        answers = specialist.probabilities([rgb[place] for place in asked], batch_size)
        for place, answer in zip(asked, answers, strict=True):
            responses[place][name] = float(answer)
    said = zip(logits.tolist(), probabilities.tolist(), responses, strict=True)
    for one in seen:
        scored = [ScoredFace(face.number, face.box, face.seconds, *next(said)) for face in one.faces]
        yield one, Detection(one.path, detector.config, scored, one.reason)


def detect_all(
    paths: ImageLike | Iterable[ImageLike],
    detector: ImageDetector,
    *,
    faces: str | Path | None = "data/raw/faces",
    every: bool = False,
    frames: int = 32,
    specialists: Mapping[str, ImageDetector] | None = None,
) -> list[Detection]:
    """Return what a detector says of photographs, videos, and those in folders.

    Photographs may be in memory as well: PIL images, or RGB arrays (H, W, 3) of uint8. `faces` is the folder
    with the face detector, or None where images are aligned crops already. `every` takes all faces, not the
    largest alone; `frames` of a video are looked at, at most. Of what is not called real, `closest` tells
    which of `specialists`, loaded detectors by name, responds most.

    Raises:
        R2MError: a path that is not there, what is no image, no detector, or no face detector. A file that
            cannot be scored does not stop the others: its `reason` says why.
    """
    require_detector(detector, "r2m.detect(paths, r2m.load({}))")
    for name, specialist in (specialists or {}).items():
        require_detector(specialist, f"specialists={{{name!r}: r2m.load({{}})}}")
    given = listed(paths)
    network = None if faces is None else face_network(Path(faces))
    finder = FaceFinder(detector.config, network, every=every, frames=frames)
    media = media_of(given)
    return list(detect(media, detector, finder, specialists=specialists, threads=torch.get_num_threads()))
