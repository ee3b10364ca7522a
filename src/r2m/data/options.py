"""Options of the photographs and their faces."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, Strict, model_validator

from r2m.options import (
    RESERVED,
    FaceModels,
    FolderSource,
    Fraction,
    Name,
    Photographs,
    Section,
    lowest_first,
    same_label,
)

PER_VIDEO = "at most so many frames of a video file, evenly over all of it"
FRAMES = "whether a sub-folder holds the frames of one video; default: told by the names of its images"


class DomainOptions(Section):
    """A collection of real photographs, split by identity (`train`) or used for tests only (`test`)."""

    images: Photographs | FolderSource | None = Field(
        default=None, description="`{package: NAME}` or `{folder: PATH}`"
    )
    dataset: Name | None = Field(
        default=None, description="data set of the section `datasets`, in place of `images`"
    )
    domain: Name | None = Field(
        default=None, description="its name in the index of the data set; default: the name here"
    )
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
    frames: bool | None = Field(default=None, description=FRAMES)
    frames_per_video: PositiveInt = Field(default=8, description=PER_VIDEO)
    label: str | None = Field(default=None, description="name for readers")

    @model_validator(mode="after")
    def _one_origin(self) -> "DomainOptions":
        if (self.images is None) == (self.dataset is None):
            raise ValueError("expected exactly one of `images` and `dataset: NAME`")
        if self.domain is not None and self.dataset is None:
            raise ValueError("`domain` belongs to `dataset`, which is not there")
        for key in ("identity", "limit", "frames", "frames_per_video"):
            if self.dataset is not None and self.is_changed(key):
                raise ValueError(f"`{key}` belongs to `images`: the index of a data set says it")
        return self


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


Quality = Annotated[int, Field(ge=1, le=100)]
Qualities = Annotated[tuple[Quality, Quality], Strict(False), AfterValidator(lowest_first)]


class FacesOptions(Section):
    """Detection, alignment, identity groups and the common last encode step."""

    detector: FaceModels | FolderSource | Literal["none"] = Field(
        default=FaceModels(package="faces"),
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
    jpeg_quality: Qualities = Field(
        default=(70, 95), description="range from which the quality of every image's last encoding is drawn"
    )
    min_images: PositiveInt = Field(default=8, description="fewest images that a split may have")


def least_images(role: str, faces: FacesOptions) -> int:
    """Return how many images a domain or generator of a role needs so that no split has to have too few."""
    shares = faces.split
    if role != "train":
        return faces.min_images
    return math.ceil(faces.min_images / min(shares.train, shares.val, shares.test))


def inconsistencies(
    domains: Mapping[str, DomainOptions], faces: FacesOptions, image_size: int
) -> Iterator[str]:
    """Yield what is wrong with domains and faces together; each text begins with its key in params.yaml."""
    training = [name for name, domain in domains.items() if domain.role == "train"]
    if len(training) != 1:
        yield f"domains: expected exactly one with `role: train`, got {training or 'none'}"
    yield from same_label("domains", {name: domain.label or name for name, domain in domains.items()})
    for name, domain in domains.items():
        wanted = least_images(domain.role, faces)
        if domain.limit is not None and domain.limit < wanted:
            yield (
                f"domains.{name}.limit: expected at least {wanted}, got {domain.limit}: each split needs"
                f" `faces.min_images` ({faces.min_images})"
            )
        if name in RESERVED:
            yield f"domains.{name}: the name is reserved; expected none of {RESERVED}"
        if faces.detector == "none" and domain.identity == "cluster" and domain.images is not None:
            yield (
                f"domains.{name}.identity: `cluster` needs a face detector, and `faces.detector` is"
                " `none`; expected `folder` or `file`"
            )
    if faces.crop_size < image_size:
        yield (
            f"faces.crop_size: expected at least `backbone.image_size` ({image_size}), got {faces.crop_size}"
        )
