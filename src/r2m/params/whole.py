"""The whole of `params.yaml`, and what follows from it."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from r2m.data.options import DomainOptions, FacesOptions
from r2m.evaluate.options import EvaluateOptions
from r2m.experiments.registry import ExperimentsOptions
from r2m.forge.options import GeneratorOptions
from r2m.merge.variants import MergeOptions
from r2m.models.options import BackboneOptions
from r2m.options import FAMILIES, Name, Section
from r2m.params.checks import inconsistencies
from r2m.train.options import FinetuneOptions, FinetuneOverrides, JointOptions, SpecialistsOptions
from r2m.trunk.options import AugmentOptions

# What torch and numpy both take.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Generator(GeneratorOptions):
    """One generator: its fakes, and how its specialist is fine-tuned."""

    finetune: FinetuneOverrides = FinetuneOverrides()


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed = Field(default=0, description="of images, splits and resamples")
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        default=[0], description="of training; with several, tables show mean ± standard deviation"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: CUDA, then MPS, then the CPU"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    domains: dict[Name, DomainOptions] = Field(
        min_length=1, description="name → a collection of real photographs"
    )
    generators: dict[Name, Generator] = Field(min_length=1, description="name → a forgery generator")
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
        for problem in inconsistencies(self):
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
        return self.by_family(self.train_generators)

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

    def by_family(self, trained: list[str]) -> dict[str, list[str]]:
        """Return family → those of the generators that are of it, in the order of the params."""
        families = {
            family: [
                name for name, one in self.generators.items() if name in trained and one.family == family
            ]
            for family in FAMILIES
        }
        return {family: names for family, names in families.items() if names}
