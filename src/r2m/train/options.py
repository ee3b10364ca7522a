"""Options of fine-tuning: of specialists, of single generators', and of joint training."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, SerializeAsAny, model_validator

from r2m.options import Positive, Section
from r2m.train.tuning.options import TuningOptions


class FinetuneOptions(Section):
    """Fine-tuning of one specialist (AdamW, warm-up and cosine, model selection on val AUC)."""

    steps: PositiveInt = Field(default=120, description="batches")
    pairs: PositiveInt = Field(default=16, description="real/fake pairs in a batch")
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


class FinetuneOverrides(Section):
    """Options of one generator's fine-tuning that differ from the common ones."""

    steps: PositiveInt | None = Field(default=None, description="in place of finetune.steps")
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

    def applied(self, options: FinetuneOptions) -> FinetuneOptions:
        """Return `options` with what is given here in their place."""
        return options.model_copy(update={key: value for key, value in self if value is not None})


class SpecialistsOptions(Section):
    """What one specialist is trained on."""

    per: Literal["generator", "family"] = Field(default="generator", description="generator or family")


class JointOptions(Section):
    """All-in-one training on the union of the generators."""

    steps_factor: Positive = Field(default=2.0, description="times the steps of one specialist")
    multiclass: bool = Field(default=False, description="train it with one class per generator as well")
