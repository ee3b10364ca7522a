"""Options of the photographs and their faces."""

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from r2m.options import FolderSource, Fraction, PackageSource, Section

FRAMES = "whether a sub-folder holds the frames of one video; default: told by the names of its images"


class DomainOptions(Section):
    """A collection of real photographs, split by identity (`train`) or used for tests only (`test`)."""

    images: PackageSource | FolderSource = Field(description="`{package: NAME}` or `{folder: PATH}`")
    role: Literal["train", "test"] = Field(
        description="train: split by identity and trained on; test: tested on only"
    )
    identity: Literal["cluster", "folder", "file"] = Field(
        default="cluster",
        description="who is on an image: cluster (by SFace), folder (its name), file (each its own)",
    )
    limit: PositiveInt | None = Field(
        default=None, description="about so many images, evenly over identities"
    )
    frames: bool | None = Field(default=None, strict=True, description=FRAMES)
    label: str | None = Field(default=None, description="name for readers")


class SplitOptions(Section):
    """Shares of the identities of the training domain."""

    train: Fraction = Field(default=0.66, description="share of the people who are trained on")
    val: Fraction = Field(default=0.15, description="share of the people by whom everything is chosen")
    test: Fraction = Field(default=0.19, description="share of the people who are tested on")

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitOptions":
        if not math.isclose(self.train + self.val + self.test, 1.0, abs_tol=1e-6):
            raise ValueError(f"expected shares that sum to 1, got {self.train + self.val + self.test:g}")
        return self


class FacesOptions(Section):
    """Detection, alignment, identity groups and the common last encode step."""

    detector: PackageSource | FolderSource | Literal["none"] = Field(
        default=PackageSource(package="faces"),
        description="`{package: faces}`, `{folder: PATH}` with the two ONNX files, or none",
    )
    crop_size: Annotated[int, Field(ge=32)] = Field(
        default=144, description="side of the aligned crops, in pixels"
    )
    margin: Annotated[float, Field(ge=1, le=3)] = Field(
        default=1.3, description="1: as much as ArcFace sees; more shows more around the face"
    )
    min_score: Fraction = Field(default=0.6, description="least score of a detection")
    identity_similarity: Fraction = Field(
        default=0.45, description="least cosine of SFace between images of one person"
    )
    split: SplitOptions = SplitOptions()
    jpeg_quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = Field(
        default=(70, 95), description="range from which the quality of every image's last encoding is drawn"
    )
    min_images: PositiveInt = Field(default=8, description="fewest images that a split may have")
