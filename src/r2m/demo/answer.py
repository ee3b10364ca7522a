"""What the page is told of a file, as JSON."""

from pydantic import BaseModel

Box = tuple[int, int, int, int]


class Picture(BaseModel):
    """A photograph, or a frame of a video shown at `seconds`: a JPEG as a data URL.

    It may be smaller than the `width` and `height` that boxes refer to.
    """

    image: str
    width: int
    height: int
    seconds: float | None = None


class Person(BaseModel):
    """A face on a photograph, or a person in a video with a `curve` of (seconds, probability).

    `box` is where the face is on the picture: left edge, top edge, width and height, None if it is not on it.
    `image` is the part of the picture around the face with its map of relevance, as a data URL, if it was
    asked for and the face is on the picture.
    """

    number: int
    decision: str
    probability: float
    box: Box | None
    curve: list[tuple[float, float]] = []
    image: str | None = None


class Answer(BaseModel):
    """What is said of a file.

    The `reason` why it has no decision is empty if it has one. `unexplained` tells why there are no maps,
    where they were asked for and the detector's backbone has none.
    """

    decision: str = ""
    probability: float | None = None
    reason: str = ""
    unexplained: str = ""
    picture: Picture | None = None
    faces: list[Person] = []
