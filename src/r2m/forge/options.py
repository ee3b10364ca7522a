"""Options of one generator's fakes."""

from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from r2m.data.options import FRAMES, PER_VIDEO
from r2m.options import FAMILIES, PARTS, Family, Name, Section


class GeneratorOptions(Section):
    """A built-in forgery (`forge`), a folder of fakes (`images`), or fakes of a data set."""

    family: Family = Field(description="face swapping, reenactment, entire synthesis, editing")
    role: Literal["train", "unseen"] = Field(
        default="train", description="train: gets a specialist; unseen: tested on only"
    )
    forge: str | None = Field(default=None, description="built-in forgery")
    images: str | None = Field(default=None, description="folder of fakes")
    dataset: Name | None = Field(default=None, description="data set of the section `datasets`")
    method: Name | None = Field(
        default=None, description="its name in the index of the data set; default: the name here"
    )
    reals: str | None = Field(default=None, description="folder of the reals that belong to `images`")
    frames: bool | None = Field(default=None, description=FRAMES)
    frames_per_video: PositiveInt = Field(default=8, description=PER_VIDEO)
    options: dict[str, float] = Field(default={}, description="of the forgery, such as its strength")
    label: str | None = Field(default=None, description="name for readers")
    group: str | None = Field(
        default=None,
        description="generators of one group are averaged apart where unseen ones are of several",
    )

    @field_validator("group")
    @classmethod
    def _names_a_group(cls, value: str | None) -> str | None:
        if value in (*PARTS, *FAMILIES):
            raise ValueError(f"the name is taken; expected none of {(*PARTS, *FAMILIES)}")
        if value is not None and (not value or value != " ".join(value.split())):
            raise ValueError("expected words with single spaces between them")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> "GeneratorOptions":
        if sum(origin is not None for origin in (self.forge, self.images, self.dataset)) != 1:
            raise ValueError("expected exactly one of `forge: NAME`, `images: FOLDER` and `dataset: NAME`")
        if self.method is not None and self.dataset is None:
            raise ValueError("`method` belongs to `dataset`, which is not there")
        if self.reals is not None and self.images is None:
            raise ValueError("`reals` belongs to `images`, which is not there")
        for key in ("frames", "frames_per_video"):
            if self.images is None and self.is_changed(key):
                raise ValueError(f"`{key}` belongs to `images`, which is not there")
        if self.options and self.forge is None:
            raise ValueError("`options` belongs to `forge`, which is not there")
        if self.group is not None and self.role != "unseen":
            raise ValueError("`group` is for `role: unseen` only, and the role is `train`")
        return self
