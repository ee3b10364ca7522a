"""What the page is told of a file: scored as by `r2m detect`, with a picture to draw boxes on."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from r2m.data.images import Image, read_image
from r2m.data.listing import is_video
from r2m.demo.answer import Answer, Person, Picture
from r2m.demo.pictures import data_url, maps
from r2m.detection.detecting import Detection, seen_and_scored
from r2m.detection.finding import Face, FaceFinder, Seen, face_network
from r2m.errors import R2MError
from r2m.models.image_detector import load

# Of a video, at most.
FRAMES = 32
# Longer side of the picture that the page shows, in pixels.
SHOWN = 1280


class FileScorer:
    """Scores one file after another with a detector that is loaded once."""

    def __init__(self, model: Path, base: Path | None, faces: Path, device: str) -> None:
        network = face_network(faces)
        self._detector = load(model, base, device=device)
        self._finder = FaceFinder(self._detector.config, network, every=True, frames=FRAMES)

    @property
    def cuts(self) -> tuple[float, float]:
        """Probabilities below which a face is real, and from which it is fake."""
        config = self._detector.config
        points = [point.threshold for point in config.operating_points] or [config.threshold]
        return min(points), max(points)

    def __call__(self, path: Path, explain: bool) -> Answer:
        """Return what is said of a photograph or video, with maps of its faces if it is to `explain` that."""
        ((seen, found),) = seen_and_scored([path], self._detector, self._finder)
        if is_video(path):
            return self._of_video(seen, found, explain)
        return self._of_photograph(seen, found, explain)

    def _of_photograph(self, seen: Seen, found: Detection, explain: bool) -> Answer:
        try:
            image, _ = read_image(found.path)
        except ValueError:  # the reason tells it
            return Answer(reason=found.reason)
        faces = [
            Person(
                number=face.number,
                decision=found.decided(face.probability),
                probability=face.probability,
                box=face.box,
            )
            for face in found.faces
        ]
        answer = _answer(found, _picture(image), faces)
        return self._explained(answer, image, seen.faces) if explain else answer

    def _of_video(self, seen: Seen, found: Detection, explain: bool) -> Answer:
        if not found.faces:
            return Answer(reason=found.reason)
        # The frame that looks most like a fake is shown, of the person whose mean does.
        pairs = list(zip(seen.faces, found.faces, strict=True))
        foremost = max(found.numbers, key=found.mean)
        own = [pair for pair in pairs if pair[0].number == foremost]
        shown = max(own, key=lambda pair: pair[1].probability)[0]
        on_it = [face for face in seen.faces if face.frame == shown.frame]
        boxes = {face.number: face.box for face in on_it}
        faces = []
        for number in found.numbers:
            mean = found.mean(number)
            faces.append(
                Person(
                    number=number,
                    decision=found.decided(mean),
                    probability=mean,
                    box=boxes.get(number),
                    curve=[(face.seconds or 0.0, face.probability) for face in found.of(number)],
                )
            )
        image = self._finder.picture(seen.path, shown)
        answer = _answer(found, _picture(image, shown.seconds), faces)
        return self._explained(answer, image, on_it) if explain else answer

    def _explained(self, answer: Answer, image: Image, faces: Sequence[Face]) -> Answer:
        """Return an answer with maps of faces on an image, or why there are none."""
        try:
            images = {number: data_url(one) for number, one in maps(image, faces, self._detector)}
        except R2MError as error:
            return answer.model_copy(update={"unexplained": str(error)})
        people = [one.model_copy(update={"image": images.get(one.number)}) for one in answer.faces]
        return answer.model_copy(update={"faces": people})


def _answer(found: Detection, picture: Picture, faces: list[Person]) -> Answer:
    return Answer(
        decision=found.decision,
        probability=found.probability if found.faces else None,
        reason=found.reason,
        picture=picture,
        faces=faces,
    )


def _picture(image: Image, seconds: float | None = None) -> Picture:
    height, width = image.shape[:2]
    scale = SHOWN / max(height, width)
    # A long and narrow one keeps a pixel.
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    url = data_url(shown.astype(np.uint8, copy=False))
    return Picture(image=url, width=width, height=height, seconds=seconds)
