"""Options of scoring and of what the tables say of the scores."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from r2m.options import Name, Section

Aggregation = Literal["mean", "median", "max"]


class EvaluateOptions(Section):
    """Scoring of images, and what the tables say of the scores."""

    batch_size: PositiveInt = Field(default=64, description="images")
    resamples: Annotated[int, Field(ge=100)] = Field(
        default=1000, description="bootstrap resamples of people behind the intervals of AUCs"
    )
    video: Aggregation = Field(
        default="mean", description="what a video's score is of the probabilities of its frames"
    )
    reference: Name | None = Field(
        default=None,
        description="merge that all other models are tested against; default: r2m, where it is enabled",
    )
