"""Options of R²M with their defaults, and types that several methods share; without torch."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from r2m.options import Section

Share = Annotated[float, Field(gt=0, le=1)]


class RealOptions(Section):
    """The shared Real component."""

    space: Literal["task", "matrix"] = Field(
        default="task", description="factorize stacked task vectors, or matrices"
    )
    rank: PositiveInt = Field(default=1, description="task space: leading directions over the specialists")
    core_ratio: Share = Field(
        default=0.02, description="matrix space: leading directions, as a share of min(m, n)"
    )
    center: bool = Field(default=False, description="task space: factorize deviations from the mean")
    scope: Literal["model", "layer"] = Field(
        default="model", description="task space: one Gram in all, or one a tensor"
    )
    block_weight: Literal["none", "frobenius", "frobenius_sqrt_size"] = Field(
        default="none", description="task space: tensors count by 1, 1/‖A‖ or √P/‖A‖, of P entries A (K, P)"
    )


class RankOptions(Section):
    """How many singular triplets of a residual matrix are kept; exactly one rule."""

    ratio: Share | None = Field(default=None, description="share of min(m, n), at least one")
    energy: Share | None = Field(
        default=None, description="least rank that holds this share of the squared norm"
    )
    fixed: PositiveInt | None = Field(default=None, description="the rank itself, for every matrix")
    optimal_threshold: bool | None = Field(default=None, description="Gavish and Donoho's hard threshold")

    @model_validator(mode="after")
    def _exactly_one(self) -> "RankOptions":
        if self.optimal_threshold is False:
            raise ValueError("optimal_threshold: expected true, or another rule")
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of ratio, energy, fixed and optimal_threshold, got {given or 'none'}"
            )
        return self


class ResidualOptions(Section):
    """What is left of a specialist beside the Real part, and how it is truncated."""

    definition: Literal["projection", "shift"] = Field(
        default="projection", description="τ less its own Real part, or less the core"
    )
    rank: RankOptions = RankOptions(ratio=0.1)
    vectors: Literal["keep", "drop"] = Field(default="keep", description="tensors that are no matrices")


class ScaleOptions(Section):
    """The residual's coefficient λ; exactly one rule."""

    relative: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="times the norm of the core"
    )
    absolute: float | None = Field(default=None, description="λ itself")

    @model_validator(mode="after")
    def _exactly_one(self) -> "ScaleOptions":
        if (self.relative is None) == (self.absolute is None):
            raise ValueError("expected exactly one of relative and absolute")
        return self


class R2M(Section):
    """Real-aware residual merging."""

    real: RealOptions = RealOptions()
    residual: ResidualOptions = ResidualOptions()
    norm_match: Literal["model", "layer", "none"] = Field(
        default="model", description="residuals are brought to one norm: in all, per tensor, or not"
    )
    scale: ScaleOptions = ScaleOptions(relative=0.6)
