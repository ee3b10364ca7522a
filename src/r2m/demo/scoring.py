"""What the page is told of a file: scored as by `r2m detect`, with a picture to draw boxes on."""

from base64 import b64encode
from pathlib import Path

import cv2

from r2m.data.images import Image, read_image
from r2m.data.listing import is_video
from r2m.demo.answer import Answer, Person, Picture
from r2m.detection.detecting import Detection, ScoredFace, detect
from r2m.detection.finding import FaceFinder, face_network
from r2m.models.image_detector import load
from r2m.video.decode import Video
from r2m.video.sample import spread

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

    def __call__(self, path: Path) -> Answer:
        """Return what is said of a photograph or video."""
        (found,) = detect([path], self._detector, self._finder)
        if is_video(path):
            return _of_video(found)
        return _of_photograph(found)


def _of_photograph(found: Detection) -> Answer:
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
    return _answer(found, _picture(image), faces)


def _of_video(found: Detection) -> Answer:
    if not found.faces:
        return Answer(reason=found.reason)
    # The frame that looks most like a fake is shown, of the person whose mean does.
    person = max(found.numbers, key=found.mean)
    shown = max(found.of(person), key=lambda face: face.probability)
    faces = []
    for number in found.numbers:
        seen = found.of(number)
        mean = found.mean(number)
        faces.append(
            Person(
                number=number,
                decision=found.decided(mean),
                probability=mean,
                box=next((face.box for face in seen if face.seconds == shown.seconds), None),
                curve=[(face.seconds or 0.0, face.probability) for face in seen],
            )
        )
    return _answer(found, _frame(found.path, shown), faces)


def _answer(found: Detection, picture: Picture | None, faces: list[Person]) -> Answer:
    return Answer(
        decision=found.decision,
        probability=found.probability if found.faces else None,
        reason=found.reason,
        picture=picture,
        faces=faces,
    )


def _frame(path: Path, face: ScoredFace) -> Picture | None:
    """Return the frame of a video that a face is on."""
    with Video(path) as video:
        numbers = [n for n in spread(len(video), FRAMES) if video.seconds(n) == face.seconds]
        for _, image in video.frames(numbers[:1]):
            return _picture(image, face.seconds)
    return None


def _picture(image: Image, seconds: float | None = None) -> Picture:
    height, width = image.shape[:2]
    scale = SHOWN / max(height, width)
    # A long and narrow one keeps a pixel.
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    url = f"data:image/jpeg;base64,{b64encode(content).decode()}"
    return Picture(image=url, width=width, height=height, seconds=seconds)
