"""Options of fine-tuning: of specialists, of single generators', and of joint training."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, SerializeAsAny, model_validator

from r2m.options import Positive, Section, nearest
from r2m.train.sampling.samplers import SAMPLERS
from r2m.train.tuning.options import TuningOptions


def _known_sampler(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler{nearest(name, SAMPLERS)}")
    return name


def _not_both(value: Any) -> None:
    """Raise ValueError for options that give the steps and the epochs."""
    if isinstance(value, Mapping) and None not in (value.get("steps"), value.get("epochs")):
        raise ValueError("`steps` and `epochs` are both given; expected one of them")


class FinetuneOptions(Section):
    """Fine-tuning of one specialist (AdamW, warm-up and cosine, model selection on val AUC)."""

    steps: PositiveInt | None = Field(default=120, description="batches, unless `epochs` are given")
    epochs: Positive | None = Field(
        default=None,
        description="in place of steps: how often every fake is drawn, or `frames_per_video` of every video;"
        " of `balanced`, as often on average over generators",
    )
    pairs: PositiveInt = Field(default=16, description="real/fake pairs in a batch")
    sampling: Annotated[str, AfterValidator(_known_sampler)] = Field(
        default="pairs",
        description="pairs: each fake with the real that it was made from; balanced: fakes and reals by"
        " themselves, and every generator equally often",
        json_schema_extra={"enum": list(SAMPLERS)},
    )
    frames_per_video: PositiveInt | None = Field(
        default=None, description="frames of every video in an epoch, other ones in the next; default: all"
    )
    lr: Positive = Field(default=3e-5, description="of the backbone, the peak after the warm-up")
    head_lr_factor: Positive = Field(default=20.0, description="times lr, for the head")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="of AdamW")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.1, description="share of the steps")
    clip_norm: Positive = Field(default=1.0, description="greatest norm of the gradients")
    validate_every: PositiveInt = Field(default=40, description="steps between val AUCs")
    checkpoint_every: PositiveInt = Field(default=40, description="steps between resumable states")
    tuning: SerializeAsAny[TuningOptions] = Field(
        default=TuningOptions.model_validate("full"),
        description="what is trained of the blocks that are: a method, or a mapping with its options",
    )
    patience: PositiveInt | None = Field(
        default=None, description="val AUCs without a better one that end the training early"
    )
    accumulate: PositiveInt = Field(
        default=1, description="parts that a batch is read in where it does not fit into memory"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="less memory: activations are computed again for the gradients"
    )
    compile: bool = Field(default=False, description="by torch.compile, which needs a C++ compiler on CPUs")
    workers: Annotated[int, Field(ge=0)] = Field(
        default=0, description="processes that read and augment images; 0: threads of the training"
    )
    processes: PositiveInt = Field(
        default=1, description="that share every batch, each with a GPU of its own where there are GPUs"
    )

    @model_validator(mode="after")
    def _parts_hold_images(self) -> "FinetuneOptions":
        if 2 * self.pairs < self.accumulate * self.processes:
            raise ValueError(
                f"{2 * self.pairs} images a batch are too few for {self.accumulate * self.processes} parts;"
                " expected more `pairs`, or less of `accumulate` and `processes`"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _steps_or_epochs(cls, value: Any) -> Any:
        _not_both(value)
        if isinstance(value, Mapping) and value.get("epochs") is not None:
            return {**value, "steps": None}
        return value

    @model_validator(mode="after")
    def _is_of_some_length(self) -> "FinetuneOptions":
        if self.steps is None and self.epochs is None:
            raise ValueError("expected `steps` or `epochs`")
        return self


class FinetuneOverrides(Section):
    """Options of one generator's fine-tuning that differ from the common ones."""

    steps: PositiveInt | None = Field(
        default=None, description="in place of finetune.steps or finetune.epochs"
    )
    epochs: Positive | None = Field(default=None, description="in place of finetune.steps or finetune.epochs")
    pairs: PositiveInt | None = Field(default=None, description="in place of finetune.pairs")
    lr: Positive | None = Field(default=None, description="in place of finetune.lr")
    head_lr_factor: Positive | None = Field(default=None, description="in place of finetune.head_lr_factor")
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="in place of finetune.weight_decay"
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="in place of finetune.warmup"
    )
    clip_norm: Positive | None = Field(default=None, description="in place of finetune.clip_norm")
    tuning: SerializeAsAny[TuningOptions] | None = Field(
        default=None, description="in place of finetune.tuning"
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_or_epochs(cls, value: Any) -> Any:
        _not_both(value)
        return value

    def applied(self, options: FinetuneOptions) -> FinetuneOptions:
        """Return `options` with what is given here in their place; steps replace epochs, and these steps."""
        given = {key: value for key, value in self if value is not None}
        length = {"steps": self.steps, "epochs": self.epochs}
        return options.model_copy(update=given | (length if length.keys() & given.keys() else {}))


class SpecialistsOptions(Section):
    """What one specialist is trained on."""

    per: Literal["generator", "family"] = Field(default="generator", description="generator or family")


class JointOptions(Section):
    """All-in-one training on the union of the generators."""

    steps_factor: Positive = Field(
        default=2.0,
        description="times the steps of one specialist; with finetune.epochs, times their mean, so that the"
        " number of specialists means as many epochs as one has",
    )
