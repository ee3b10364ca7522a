"""Options of what is done to crops before the detector reads them."""

from typing import Annotated

from pydantic import AfterValidator, Field, Strict

from r2m.data.options import Qualities
from r2m.options import Section, lowest_first, odd

Probability = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=0, lt=1)]
# The smallest images have 16 pixels a side, and what a kernel needs beyond the border is reflected.
Kernel = Annotated[int, Field(ge=3, le=31), AfterValidator(odd)]
Share = Annotated[float, Field(gt=0, le=1)]


class AugmentOptions(Section):
    """Augmentation on the fly, where no trunk is cached (`trainable_blocks: all`); 0 turns one off.

    The ranges are those that DF40 is trained with (Yan et al., NeurIPS 2024), which does not scale.
    """

    flip: Probability = Field(default=0.5, description="probability of the mirror image")
    rotate: Annotated[float, Field(ge=0, le=45)] = Field(default=10.0, description="degrees, both ways")
    blur: Probability = Field(default=0.5, description="probability of a Gaussian blur")
    blur_kernel: Annotated[tuple[Kernel, Kernel], Strict(False), AfterValidator(lowest_first)] = Field(
        default=(3, 7), description="least and greatest size of its kernel in pixels, odd"
    )
    brightness: Change = Field(default=0.1, description="greatest change, as a share")
    contrast: Change = Field(default=0.1, description="greatest change, as a share")
    resize: Probability = Field(default=0.0, description="probability of scaling down and up again")
    resize_to: Annotated[tuple[Share, Share], Strict(False), AfterValidator(lowest_first)] = Field(
        default=(0.3, 1.0), description="smallest and largest share of the size that is scaled to"
    )
    jpeg: Probability = Field(default=0.5, description="probability of a compression by JPEG")
    jpeg_quality: Qualities = Field(default=(40, 100), description="lowest and highest quality")
