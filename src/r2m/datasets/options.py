"""Options of a data set that has an index."""

from typing import Literal

from pydantic import Field, PositiveInt

from r2m.options import Section


class DatasetOptions(Section):
    """A data set: its index, and how its images are taken in."""

    index: str = Field(description="index that `r2m index` made, from the folder of params.yaml")
    root: str | None = Field(
        default=None, description="folder of its files, if not the one that the index says"
    )
    aligned: bool = Field(
        default=True,
        description="images are aligned crops already; false: their faces are found, as those of videos are"
        " always",
    )
    encode: Literal["none", "jpeg"] = Field(
        default="none",
        description="none: crops are read where they lie, and faces that are found kept as PNG; jpeg: all are"
        " encoded like other images",
    )
    frames: PositiveInt | None = Field(
        default=8, description="at most so many images a video, evenly over all of it; null: all"
    )
    faces: Literal["largest", "all"] = Field(
        default="largest", description="of video files: the largest face, or every one that can be followed"
    )
    allow_leakage: bool = Field(
        default=False, description="whether a person or an image may stand in several splits"
    )
    check: Literal["contents", "names"] = Field(
        default="contents", description="contents: validation opens every image, once; names: it opens none"
    )

    def as_taken(self) -> "DatasetOptions":
        """Return the options without those that change no image set."""
        fields = type(self).model_fields
        unimportant = ("root", "allow_leakage", "check")
        return self.model_copy(update={key: fields[key].default for key in unimportant})
