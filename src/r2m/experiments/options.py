"""The section `experiments` of `params.yaml`: what `snakemake paper` adds to the default run."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt, Strict, model_validator

from r2m.options import Fraction, Name, Positive, Section, Value, each_once


def _at_least_one(names: list[str]) -> list[str]:
    if not names:
        raise ValueError("expected at least one")
    return names


Names = Annotated[list[Name], AfterValidator(each_once)]
Variants = Annotated[Names, AfterValidator(_at_least_one)]
Levels = Annotated[list[Value], AfterValidator(each_once)]
# Dotted option → its values.
Factors = dict[str, Annotated[list[Any], Field(min_length=1), AfterValidator(each_once)]]


class Experiment(Section):
    """One experiment of `snakemake paper`."""

    enabled: bool = Field(default=False, description="whether `snakemake paper` runs it")


class HeadsOptions(Experiment):
    """Heads of merged backbones: the specialists', their mean, the initial one, and two fitted anew."""

    variants: Variants = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")


class AblationOptions(Experiment):
    """R²M with one option changed at a time from those that were chosen on val."""

    variants: Variants = Field(default=["r2m"], description="enabled merge variants of the method r2m")
    factors: Factors = Field(default={}, description="dotted option → its values")


class ComposabilityOptions(Experiment):
    """Generators that arrive one by one: merged again, or trained jointly again."""

    orders: PositiveInt = Field(default=3, description="random orders of arrival, drawn by `seed`")
    variants: Variants = Field(
        default=["weight_averaging", "task_arithmetic", "ties", "r2m"],
        description="enabled merge variants whose methods need no statistics",
    )


class SimilarityOptions(Experiment):
    """Features of specialists beside those of the base, of each other and of merges, Real against Fake."""

    variants: Variants = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    images: Annotated[int, Field(ge=4)] = Field(
        default=500, description="most images of a set that are compared, evenly spaced"
    )


class RationaleOptions(Experiment):
    """Which way the Real component and the residuals of R²M shift features, and whether shifts add up."""

    variants: Variants = Field(default=["r2m"], description="enabled merge variants of the method r2m")


class HostileOptions(Experiment):
    """One specialist replaced by an undertrained, mislabelled, random, scaled or backdoored one."""

    variants: Variants = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    victim: str | None = Field(default=None, description="the specialist; default: the first")
    undertrained: Fraction = Field(default=0.1, description="share of the people it is trained on")
    scale: Positive = Field(default=10.0, description="factor of the scaled task vector")
    poisoned: Fraction = Field(
        default=0.5, description="share of the fakes with a copy that has a trigger and is called real"
    )
    trigger: Fraction = Field(default=0.125, description="side of the trigger, as a share of the image's")


class RobustnessOptions(Experiment):
    """AUC on test images of the training domain that were perturbed; a perturbation without levels is off."""

    variants: Names = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    people: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the people whose test images are taken"
    )
    jpeg: Levels[Annotated[int, Field(ge=1, le=100)]] = Field(default=[], description="qualities")
    blur: Levels[Annotated[tuple[PositiveInt, Positive], Strict(False)]] = Field(
        default=[], description="[odd size of the kernel, σ] in pixels"
    )
    noise: Levels[Positive] = Field(default=[], description="σ as a share of the range of values")
    resize: Levels[Fraction] = Field(default=[], description="share of the size that images are scaled to")
    saturation: Levels[Annotated[float, Field(ge=0)]] = Field(default=[], description="factors")
    contrast: Levels[Annotated[float, Field(ge=0)]] = Field(default=[], description="factors")

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

    variants: Variants = Field(
        default=["weight_averaging", "task_arithmetic", "ties", "tsv_m", "r2m"],
        description="enabled merge variants, tuned anew with their own grids",
    )
    generators: Names = Field(
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
    cores: dict[Name, Factors] = Field(
        default={"r2m": {}},
        min_length=1,
        description="enabled merge variant → dotted option → its values; {}: as it is",
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
