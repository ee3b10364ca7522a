"""Options of what is done to crops before the detector reads them."""

from typing import Annotated

from pydantic import Field

from r2m.options import Section


class AugmentOptions(Section):
    """Augmentation on the fly, where no trunk is cached (`trainable_blocks: all`)."""

    flip: Annotated[float, Field(ge=0, le=1)] = Field(default=0.5, description="probability")
    rotate: Annotated[float, Field(ge=0, le=45)] = Field(default=10.0, description="degrees, both ways")
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="greatest change, as a share"
    )
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="greatest change, as a share"
    )
