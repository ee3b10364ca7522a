"""Effort: the least singular directions of linear layers; the principal ones stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, PositiveInt

from r2m.errors import R2MError
from r2m.options import each_once
from r2m.train.tuning.method import Method, Wrapping
from r2m.train.tuning.options import TuningOptions

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.models.backbone import Detector

Weight = Annotated[float, Field(ge=0)]


class Options(TuningOptions):
    """The least singular directions of every chosen layer."""

    rank: PositiveInt = Field(default=1, description="singular directions of a layer that are trained")
    targets: Annotated[list[str], Field(min_length=1), AfterValidator(each_once)] = Field(
        default=["qkv", "proj", "fc1", "fc2"],
        description="linear layers, by the ends of their names; in the paper those of attention",
    )
    orthogonality: Weight = Field(default=1.0, description="times ‖ÛᵀÛ − I‖² + ‖V̂V̂ᵀ − I‖², in the loss")
    singular_values: Weight = Field(default=1.0, description="times the change of ‖W‖², in the loss")


def wrap(detector: Detector, options: Options, seed: int) -> Wrapping:
    """Split the weights of the chosen layers into a frozen part and directions that are trained.

    The loss grows by the mean over layers of `orthogonality` and `singular_values`, each times its weight.
    The paper's objective has both terms. The authors' code (effort_detector.py) computes them for a layer,
    and holds their mean over layers with weights of 1 in a comment, so it trains without them. There the
    first is the norm, not its square as here, which has no gradient where training starts.

    Raises:
        R2MError: `targets` match nothing, or `rank` leaves nothing frozen of a layer.
    """
    import torch

    from r2m.train.tuning.layers import in_place_of, linear_layers
    from r2m.train.tuning.subspace import SubspaceLinear

    layers = linear_layers(detector, options.targets)
    for name, layer in layers.items():
        if options.rank >= min(layer.weight.shape):
            raise R2MError(
                f"params.yaml: finetune.tuning.rank: {options.rank} leaves nothing frozen of {name}"
                f" {tuple(layer.weight.shape)}; expected less than {min(layer.weight.shape)}"
            )
    split = {name: SubspaceLinear(layer, options.rank) for name, layer in layers.items()}
    for parameter in detector.backbone.parameters():
        parameter.requires_grad_(False)
    for name, trained in split.items():
        detector.backbone.set_submodule(name, trained)

    def penalty() -> Tensor:
        return torch.stack(
            [
                options.orthogonality * trained.orthogonality()
                + options.singular_values * trained.norm_change()
                for trained in split.values()
            ]
        ).mean()

    is_free = options.orthogonality == options.singular_values == 0
    return in_place_of(
        detector.backbone, layers, lambda name: split[name].weight_now(), None if is_free else penalty
    )


METHOD = Method(
    title="Effort",
    citation="Yan et al., Orthogonal subspace decomposition for generalizable AI-generated image detection,"
    " arXiv 2411.15633",
    options=Options,
    wrap=wrap,
)
