"""Options of the backbone."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from r2m.options import FileSource, PretrainedWeights, Section


class BackboneOptions(Section):
    """The timm model that all specialists start from."""

    name: str = Field(default="vit_base_patch16_clip_quickgelu_224", description="timm model")
    image_size: Annotated[int, Field(ge=16)] = Field(default=112, description="side of its input, in pixels")
    weights: PretrainedWeights | FileSource = Field(
        default=PretrainedWeights(package="clip"), description="`{package: clip}` or `{file: PATH}`"
    )
    blocks: PositiveInt | Literal["all"] = Field(
        default="all", description="lowest blocks of a vision transformer that are kept; or all"
    )
    trainable_blocks: PositiveInt | Literal["all"] = Field(
        default=4,
        description="upper ones of those that are fine-tuned; what is below runs once an image; or all",
    )
    head: str = Field(default="linear", description="type of classifier: linear or cosine")
