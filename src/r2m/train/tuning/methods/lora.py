"""LoRA: an update of low rank beside every chosen linear layer, which is added to its weight in the end."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from r2m.errors import R2MError
from r2m.options import Positive, each_once
from r2m.train.tuning.method import Method, Wrapping
from r2m.train.tuning.options import TuningOptions

if TYPE_CHECKING:
    from torch import Tensor

    from r2m.models.backbone import Detector

ADAPTER = "r2m"


class Options(TuningOptions):
    """An update (alpha / rank) B A of every chosen layer."""

    rank: PositiveInt = Field(default=8, description="of the update of a layer")
    alpha: Positive = Field(default=16.0, description="updates are multiplied by alpha / rank")
    targets: Annotated[list[str], Field(min_length=1), AfterValidator(each_once)] = Field(
        default=["qkv", "proj"], description="linear layers, by the ends of their names"
    )

    @model_validator(mode="after")
    def _can_be_run(self) -> Options:
        _check_installed()
        return self


def wrap(detector: Detector, options: Options, seed: int) -> Wrapping:
    """Put peft's layers in place of the chosen ones; A is drawn as peft does, from `seed`, and B is 0.

    Raises:
        R2MError: peft is missing, or `targets` match nothing.
    """
    _check_installed()
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    from r2m.train.tuning.layers import in_place_of, linear_layers

    backbone = detector.backbone
    layers = linear_layers(detector, options.targets)
    alpha: Any = options.alpha  # declared as an integer there, and only divided by the rank
    config = LoraConfig(r=options.rank, lora_alpha=alpha, target_modules=list(layers))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, backbone, adapter_name=ADAPTER)
    del backbone.peft_config

    wrapped: dict[str, Any] = {name: backbone.get_submodule(name) for name in layers}

    def weight(name: str) -> Tensor:
        return layers[name].weight + wrapped[name].get_delta_weight(ADAPTER)

    return in_place_of(backbone, layers, weight)


def _check_installed() -> None:
    if find_spec("peft") is None:
        raise R2MError(
            "params.yaml: finetune.tuning: `lora` needs the package peft, which is not installed;"
            " run `pip install peft`, or install r2m with its extra `lora`"
        )


METHOD = Method(
    title="LoRA",
    citation="Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022, arXiv 2106.09685",
    options=Options,
    wrap=wrap,
)
