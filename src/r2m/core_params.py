"""All of `params.yaml` but its experiments, and what follows from it."""

from collections.abc import Collection, Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from r2m.data import options as data_options
from r2m.data.options import DomainOptions, FacesOptions
from r2m.datasets.options import DatasetOptions
from r2m.datasets.slices import REAL, Part, Splits
from r2m.evaluate.options import EvaluateOptions
from r2m.forge import registry as forgeries
from r2m.forge.options import GeneratorOptions
from r2m.merge import variants as merges
from r2m.merge.variants import MergeOptions
from r2m.models.options import BackboneOptions
from r2m.options import FAMILIES, RESERVED, Name, Section, Seed, complaint, each_once, nearest, same_label
from r2m.train.options import FinetuneOptions, FinetuneOverrides, JointOptions, SpecialistsOptions
from r2m.train.sampling.epochs import lengthened
from r2m.trunk.options import AugmentOptions


class Generator(GeneratorOptions):
    """One generator: its fakes, and how its specialist is fine-tuned."""

    finetune: FinetuneOverrides = FinetuneOverrides()


class CoreParams(Section):
    """All of params.yaml but `experiments`."""

    seed: Seed = Field(default=0, description="of images, splits and resamples")
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(each_once)] = Field(
        default=[0], description="of training; with several, tables show mean ± standard deviation"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: CUDA, then MPS, then the CPU"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    deterministic: bool = Field(
        default=True, description="the same bits again on CUDA, at some cost; on CPUs they are anyway"
    )
    datasets: dict[Name, DatasetOptions] = Field(
        default={}, description="name → a data set with an index, which domains and generators may be of"
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

    @model_validator(mode="after")
    def _sections_fit(self) -> "CoreParams":
        for problem in _inconsistencies(self):
            raise ValueError(problem)
        return self

    @property
    def train_domain(self) -> str:
        """Name of the one domain with role `train`."""
        return next(name for name, domain in self.domains.items() if domain.role == "train")

    @property
    def encodes_reals(self) -> bool:
        """Whether real images of training are encoded; those of a data set may be read where they lie."""
        dataset = next((one.dataset for one in self.domains.values() if one.role == "train"), None)
        return dataset not in self.datasets or self.datasets[dataset].encode == "jpeg"

    @property
    def train_generators(self) -> list[str]:
        """Names of the generators that specialists are trained on."""
        return [name for name, generator in self.generators.items() if generator.role == "train"]

    @property
    def dataset_of(self) -> dict[str, str]:
        """Image set → its data set, for the domains and generators that are of one."""
        sets: dict[str, DomainOptions | Generator] = {**self.domains, **self.generators}
        return {name: one.dataset for name, one in sets.items() if one.dataset is not None}

    def trained_domains(self, dataset: str) -> list[str]:
        """Return the domains of a data set's index that are trained on."""
        sets = [name for name, own in self.dataset_of.items() if own == dataset]
        trained = [part for name in sets for part in self.parts_of(name) if part.splits == "all"]
        return sorted({part.domain for part in trained})

    def parts_of(self, image_set: str, *, as_trained: bool | None = None) -> list[Part]:
        """Return the parts of its data set that a domain or generator is made of.

        Fakes are those of the domains of the data set that the params name, and of the domain that is called
        after the method itself, whose reals come with them. `as_trained` takes a generator for one that is
        trained on, or is not, whatever its role.
        """
        if image_set in self.domains:
            domain = self.domains[image_set]
            splits: Splits = "all" if domain.role == "train" else "test_if_any"
            return [Part(domain.domain or image_set, REAL, image_set, splits)]
        generator = self.generators[image_set]
        method = generator.method or image_set
        is_trained = generator.role == "train" if as_trained is None else as_trained
        shared = {
            domain.domain or name: (name, domain.role)
            for name, domain in self.domains.items()
            if domain.dataset == generator.dataset
        }
        parts = []
        for known, (name, role) in shared.items():
            of_training: Splits = "all" if is_trained else "test"
            parts.append(Part(known, method, name, of_training if role == "train" else "test_if_any"))
        if method not in shared:
            own: Splits = "all" if is_trained else "test_if_any"
            parts += [Part(method, one, image_set, own) for one in (REAL, method)]
        return parts

    @property
    def variants(self) -> dict[str, str]:
        """Enabled merge variant → its method."""
        return self.merge.enabled

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

    def by_family(self, generators: Collection[str]) -> dict[str, list[str]]:
        """Return family → those of the generators that are of it, in the order of the params."""
        families: dict[str, list[str]] = {family: [] for family in FAMILIES}
        for name, generator in self.generators.items():
            if name in generators:
                families[generator.family].append(name)
        return {family: names for family, names in families.items() if names}

    def finetune_options(self, specialist: str) -> FinetuneOptions:
        """Return the fine-tuning options of one specialist, its generator's overrides applied."""
        if self.specialists.per == "generator":
            return self.generators[specialist].finetune.applied(self.finetune)
        return self.finetune

    def joint_options(self, count: int | None = None) -> FinetuneOptions:
        """Return the options of joint training on what `count` specialists (None: all) are trained on.

        Steps grow evenly from a specialist's to `joint.steps_factor` times as many.
        """
        specialists = len(self.specialist_members)
        count = specialists if count is None else count
        share = (count - 1) / (specialists - 1) if specialists > 1 else 1.0
        factor = share * self.joint.steps_factor + (1 - share)
        return lengthened(self.finetune, factor, count)


def _inconsistencies(params: CoreParams) -> Iterator[str]:
    """Yield what single sections cannot show; each text begins with its key in params.yaml."""
    yield from _wrong_datasets(params)
    yield from data_options.inconsistencies(params.domains, params.faces, params.backbone.image_size)
    labels = {name: generator.label or name for name, generator in params.generators.items()}
    yield from same_label("generators", labels)
    if not params.train_generators:
        yield "generators: expected at least one with `role: train`"
    for name, generator in params.generators.items():
        if name in params.domains or name in RESERVED:
            yield f"generators.{name}: the name is taken; expected no domain's and none of {RESERVED}"
        yield from forgeries.inconsistencies(name, generator, has_detector=params.faces.detector != "none")
        if generator.finetune != FinetuneOverrides() and name not in params.specialist_members:
            yield f"generators.{name}.finetune: there is no specialist of this generator alone"
        try:
            FinetuneOptions.model_validate(dict(generator.finetune.applied(params.finetune)))
        except ValidationError as error:
            yield complaint(error, f"generators.{name}.finetune")
    yield from merges.inconsistencies(params.merge, params.specialist_members)
    if params.reference is not None and params.reference not in params.variants:
        yield f"evaluate.reference: {params.merge.why_not(params.reference)}"


def _wrong_datasets(params: CoreParams) -> Iterator[str]:
    """Yield what does not fit between data sets, and the domains and generators that are of them."""
    taken: dict[tuple[str, str, str], str] = {}
    for name, dataset in params.dataset_of.items():
        if name in params.generators:
            section, known = "generators", params.generators[name].method or name
        else:
            section, known = "domains", params.domains[name].domain or name
        key = f"{section}.{name}"
        if section == "generators" and known == REAL:
            yield f"{key}.method: {REAL!r} stands for the reals of an index; expected a generator's"
            return
        if dataset not in params.datasets:
            yield f"{key}.dataset: unknown data set {dataset!r}{nearest(dataset, params.datasets)}"
            return
        if (section, dataset, known) in taken:
            yield f"{key}: the same images as {taken[section, dataset, known]}; expected images of its own"
        taken[section, dataset, known] = key
    for name in sorted(set(params.dataset_of.values())):
        if params.faces.detector == "none" and not params.datasets[name].aligned:
            yield (
                f"datasets.{name}.aligned: faces have to be found, and `faces.detector` is `none`; expected a"
                " detector, or `aligned: true`"
            )
    if params.encodes_reals:
        return
    reals = params.domains[params.train_domain].dataset
    for name, generator in params.generators.items():
        if generator.images is not None and generator.reals is None:
            yield (
                f"generators.{name}.images: these fakes would be encoded, and the reals of"
                f" {params.train_domain} are not, which tells them apart; expected `reals` beside them, or"
                f" `datasets.{reals}.encode: jpeg`"
            )
