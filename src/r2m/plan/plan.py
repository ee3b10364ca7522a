"""What all stages of a run share: names, the places of files, and calls that experiments make as well."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from r2m.core_params import CoreParams
from r2m.datasets.options import DatasetOptions
from r2m.evaluate.protocols import EvaluationContext
from r2m.forge import registry as forgeries
from r2m.forge.options import GeneratorOptions
from r2m.forge.registry import Forgery
from r2m.merge import registry
from r2m.merge.variants import MergeVariant
from r2m.options import FolderSource, PackageSource
from r2m.plan.stage import Job
from r2m.session_files import Compute, MergeParts, SessionFiles
from r2m.train.options import FinetuneOptions
from r2m.train.tuning import registry as tunings

RESULTS = Path("results")
RAW = Path("data/raw")
PINS = Path("data/sources.txt")
BASE = RESULTS / "base/base.safetensors"
INITIAL_HEAD = RESULTS / "base/initial_head.safetensors"
POOL = RESULTS / "pool/stylegan.safetensors"
PROBE = RESULTS / "probe/head.safetensors"
BASE_SCORES = RESULTS / "scores/base/base/scores.parquet"
BENCHMARKS = RESULTS / "benchmarks"
FORMATS = ("png", "pdf", "svg")
JOINT = "joint"


class Plan:
    """The names and files of one run; everything follows from `params`."""

    def __init__(self, params: CoreParams) -> None:
        self.params = params
        self.domains = list(params.domains)
        self.generators = list(params.generators)
        self.trained = params.train_generators
        self.sets = [*self.domains, *self.generators]
        self.datasets = sorted(set(params.dataset_of.values()))
        self.members = params.specialist_members
        self.variants = params.variants
        self.seeds = [str(seed) for seed in params.seeds]
        self.has_trunk = params.backbone.trainable_blocks != "all"
        self.compute = Compute(params.backbone, params.device, params.precision, params.deterministic)

    @cached_property
    def models(self) -> dict[str, list[str]]:
        """Kind of model → the models that every seed has one of."""
        return {"specialist": list(self.members), "joint": [JOINT], "merge": list(self.variants)}

    @cached_property
    def r2m_variants(self) -> list[str]:
        """The merges by R²M."""
        return [name for name, method in self.variants.items() if method == "r2m"]

    @cached_property
    def reference(self) -> str:
        """The merge that the model card is of."""
        return self.params.reference or [*self.r2m_variants, *self.variants][0]

    def label(self, variant: str) -> str:
        """Return the name of a merge for readers."""
        return self.params.merge.methods[variant].label or variant

    def seeded(self, **wildcards: Iterable[str]) -> list[dict[str, str]]:
        """Return the wildcards of one job per value and seed."""
        ((name, values),) = wildcards.items()
        return [{name: value, "seed": seed} for value in values for seed in self.seeds]

    # Sources

    @cached_property
    def packages(self) -> list[str]:
        """The pinned packages that the run needs."""
        domains = self.params.domains.values()
        sources = [*(one.images for one in domains), self.params.faces.detector, self.params.backbone.weights]
        named = {source.package for source in sources if isinstance(source, PackageSource)}
        return sorted(named.union(self.packages_of(self.generators)))

    def packages_of(self, generators: Iterable[str]) -> list[str]:
        """Return the pinned packages whose networks make the fakes of some generators."""
        used = [forgery.packages for forgery in self.forgeries_of(generators)]
        return sorted({package for packages in used for package in packages})

    def forgeries_of(self, generators: Iterable[str]) -> list[Forgery]:
        """Return the built-in forgeries among some generators."""
        names = [self.params.generators[name].forge for name in generators]
        return [forgeries.get(name) for name in names if name]

    @cached_property
    def has_pool(self) -> bool:
        """Whether a forgery asks for the pool of the StyleGAN's faces."""
        return any(forgery.needs_pool for forgery in self.forgeries_of(self.generators))

    def receipts(self, *sources: object) -> list[Path]:
        """Return the receipts of the pinned packages among `sources`."""
        return [receipt(one.package) for one in sources if isinstance(one, PackageSource)]

    def detector_files(self) -> dict[str, Path | None]:
        """Return the ONNX files of the face detector and of the embedder, None where there is none."""
        source = self.params.faces.detector
        if source == "none":
            return {"detector": None, "embedder": None}
        folder = source_folder(source)
        return {"detector": folder / "yunet.onnx", "embedder": folder / "sface.onnx"}

    # Images

    def folder(self, image_set: str, root: Path = RESULTS) -> Path:
        """Return the folder of an image set."""
        return root / ("faces" if image_set in self.domains else "forged") / image_set

    def manifest(self, image_set: str, root: Path = RESULTS) -> Path:
        """Return the manifest of an image set."""
        return self.folder(image_set, root) / "manifest.parquet"

    def trunk(self, image_set: str, root: Path = RESULTS) -> Path:
        """Return the cached activations of an image set."""
        stage = "faces" if image_set in self.domains else "forged"
        return root / "trunk" / stage / image_set / "activations.safetensors"

    def training_sets(self, generators: Iterable[str]) -> list[str]:
        """Return the image sets that training on `generators` reads."""
        return [self.params.train_domain, *generators]

    def files(
        self, image_sets: Iterable[str], root: Path = RESULTS, replaced: Iterable[str] = ()
    ) -> SessionFiles:
        """Return what a session on image sets reads; those in `replaced` lie below `root`."""
        own = set(replaced)
        places = {name: root if name in own else RESULTS for name in image_sets}
        return SessionFiles(
            tuple(self.manifest(name, place) for name, place in places.items()),
            tuple(self.trunk(name, place) for name, place in places.items()) if self.has_trunk else (),
            BASE,
        )

    def slice_digest(self, image_set: str) -> Path:
        """Return the digest of the slices of a data set that an image set is made of."""
        return RESULTS / "slices" / image_set

    def taken(self, dataset: str) -> DatasetOptions:
        """Return what image sets of a data set depend on, beside the rows of its index."""
        return self.params.datasets[dataset].as_taken()

    def root(self, dataset: str) -> Path:
        """Return the link to the folder of a data set's files (`link_roots`)."""
        return RESULTS / ".state/roots" / dataset

    def dataset_job(
        self,
        image_set: str,
        function: str,
        outputs: Mapping[str, Path],
        values: Mapping[str, Any],
        also: Sequence[Path] = (),
    ) -> Job:
        """Return the taking of an image set from its data set, whose index has been validated before."""
        options = self.taken(self.params.dataset_of[image_set])
        folder = outputs["manifest"].parent
        return Job(
            f"r2m.datasets.stages:{function}",
            {},
            {"out": folder},
            {
                "options": options,
                "root": self.root(self.params.dataset_of[image_set]),
                "faces": self.params.faces,
                "image_size": self.params.backbone.image_size,
                "seed": self.params.seed,
                "state": RESULTS / ".state" / folder.relative_to(RESULTS),
                **values,
                **self.detector_files(),
            },
            also=[self.slice_digest(image_set), *also],
            receipts=self.receipts(self.params.faces.detector),
            settled=[Path(options.index)],
        )

    def forge_job(
        self,
        generator: str,
        options: GeneratorOptions,
        outputs: Mapping[str, Path],
        faces: Sequence[Path] | None = None,
    ) -> Job:
        """Return the making of one generator's fakes, of the domains in the folders `faces`."""
        folders = [self.folder(name) for name in self.domains] if faces is None else list(faces)
        if options.dataset is not None:
            return self._fakes_job(generator, options, outputs, folders)
        there = [folder / name for name in ("manifest.parquet", "landmarks.parquet") for folder in folders]
        forgery = forgeries.get(options.forge) if options.forge else None
        packages = forgery.packages if forgery else ()
        return Job(
            "r2m.forge.stages:forge",
            {
                "trained": self._trained_folders(generator),
                "pool": POOL if forgery and forgery.needs_pool else None,
            },
            {"out": outputs["manifest"].parent},
            {
                "generator": generator,
                "options": options,
                "faces": folders,
                "faces_options": self.params.faces,
                "image_size": self.params.backbone.image_size,
                "seed": self.params.seed,
                "packages": {name: RAW / name for name in packages},
                **self.detector_files(),
            },
            also=there,
            receipts=[*self.receipts(self.params.faces.detector), *map(receipt, packages)],
            modules=[forgery.module] if forgery else [],
        )

    def _fakes_job(
        self,
        generator: str,
        options: GeneratorOptions,
        outputs: Mapping[str, Path],
        folders: Sequence[Path],
    ) -> Job:
        """Return the taking of a generator's fakes from its data set."""
        is_trained = options.role == "train"
        parts = self.params.parts_of(generator, as_trained=is_trained)
        domains = {part.name: self.domains.index(part.name) for part in parts if part.name in self.domains}
        manifests = {name: folders[place] / "manifest.parquet" for name, place in domains.items()}
        # Fakes that an experiment takes again are made anew whenever those of the main run are.
        main = self.manifest(generator)
        return self.dataset_job(
            generator,
            "fakes",
            outputs,
            {
                "generator": generator,
                "family": options.family,
                "is_trained": is_trained,
                "parts": parts,
                "domains": manifests,
            },
            also=[*manifests.values(), *([main] if outputs["manifest"] != main else [])],
        )

    def fakes(self, generator: str, **changes: Any) -> GeneratorOptions:
        """Return what the fakes of a generator depend on."""
        options = self.params.generators[generator].model_dump(exclude={"finetune", "label", "group"})
        return GeneratorOptions.model_validate({**options, **changes})

    def own_folders(self, image_set: str) -> list[str]:
        """Return the user's folders behind a domain or generator, as params.yaml names them."""
        if image_set in self.domains:
            source = self.params.domains[image_set].images
            return [source.folder] if isinstance(source, FolderSource) else []
        options = self.params.generators[image_set]
        return [folder for folder in (options.images, options.reals) if folder]

    def _trained_folders(self, generator: str) -> list[Path]:
        """Return the manifests of trained folders of fakes, whose people an unseen folder may show."""
        options = self.params.generators[generator]
        if options.role == "train" or options.images is None:
            return []
        return [self.manifest(name) for name in self.trained if self.params.generators[name].images]

    def trunk_job(self, manifest: Path, activations: Path) -> Job:
        """Return the trunk's pass over the images of a manifest."""
        return Job(
            "r2m.trunk.stages:trunk",
            {"manifest": manifest, "base": BASE},
            {"activations": activations},
            {
                "backbone": self.params.backbone,
                "device": self.params.device,
                "precision": self.params.precision,
            },
        )

    # Training

    def finetune_job(
        self,
        name: str,
        generators: Sequence[str],
        options: FinetuneOptions,
        seed: str,
        outputs: Mapping[str, Path],
        files: SessionFiles | None = None,
        objective: str = "binary",
        state: str | None = None,
    ) -> Job:
        """Return the training of one model on the fakes of some generators and their reals."""
        return Job(
            "r2m.train.stages:finetune",
            {"files": files or self.files(self.training_sets(generators)), "initial_head": INITIAL_HEAD},
            outputs,
            {
                "name": name,
                "generators": list(generators),
                "options": options,
                "augment": self.params.augment,
                "objective": objective,
                "seed": int(seed),
                "compute": self.compute,
                "state": RESULTS / f".state/{state or name}/seed{seed}.safetensors",
            },
            modules=[tunings.module_of(options.tuning.method)],
        )

    def task_vector_job(self, specialist: Path, outputs: Mapping[str, Path]) -> Job:
        """Return the subtraction of the base from one specialist."""
        return Job("r2m.merge.stages:task_vector", {"base": BASE, "specialist": specialist}, outputs, {})

    def specialists(self, part: str, seed: str) -> dict[str, Path]:
        """Return specialist → its file of one part (model, task_vector, head), sorted by name."""
        return {name: self.specialist(name, part, seed) for name in sorted(self.members)}

    def specialist(self, name: str, part: str, seed: str) -> Path:
        """Return one file of a specialist."""
        return RESULTS / f"specialists/{name}/seed{seed}/{part}.safetensors"

    def model(self, kind: str, name: str, seed: str) -> Path:
        """Return the checkpoint of a trained or merged model."""
        folder = {
            "specialist": RESULTS / "specialists" / name,
            "joint": RESULTS / name,
            "merge": RESULTS / "merged" / name,
        }[kind]
        return folder / f"seed{seed}/model.safetensors"

    # Merging

    def parts(self, seed: str) -> MergeParts:
        """Return what merges of all specialists are made of."""
        return MergeParts(self.specialists("task_vector", seed), self.specialists("head", seed), INITIAL_HEAD)

    def chosen(self, variant: str, seed: str) -> Path:
        """Return the options that were chosen on val for a merge."""
        return RESULTS / f"tune/{variant}/seed{seed}/chosen.json"

    def real_component(self, variant: str, seed: str) -> Path:
        """Return the Real component of a merge by R²M."""
        return RESULTS / f"real/{variant}/seed{seed}/core.safetensors"

    def residuals(self, variant: str, seed: str, suffix: str = ".safetensors") -> dict[str, Path]:
        """Return specialist → its truncated residual in a merge by R²M, or the report of that (`.json`)."""
        folder = RESULTS / f"residuals/{variant}/seed{seed}"
        return {name: folder / f"{name}{suffix}" for name in self.members}

    def tuned(self, variant: str) -> MergeVariant:
        """Return what tuning a merge depends on: method, head, options and grid."""
        return self.params.merge.methods[variant].model_copy(update={"enabled": True, "label": None})

    def statistics(self, variant: str, seed: str) -> dict[str, Path]:
        """Return specialist → what the method needs of its training data; empty where it needs nothing."""
        if registry.get(self.variants[variant]).statistics is None:
            return {}
        folder = RESULTS / f"statistics/{variant}/seed{seed}"
        return {name: folder / f"{name}.safetensors" for name in self.members}

    def method_modules(self, variants: Iterable[str]) -> list[str]:
        """Return the modules of the merging methods of some merges."""
        return [f"r2m.merge.methods.{self.variants[name]}" for name in variants if name in self.variants]

    # Evaluation

    def scores(self, kind: str, name: str) -> list[Path]:
        """Return the scores of a model, one file per seed."""
        return [RESULTS / f"scores/{kind}/{name}/seed{seed}/scores.parquet" for seed in self.seeds]

    @cached_property
    def all_scores(self) -> list[Path]:
        """The scores of all models."""
        models = [(kind, name) for kind, names in self.models.items() for name in names]
        return [BASE_SCORES, *(path for kind, name in models for path in self.scores(kind, name))]

    @cached_property
    def context(self) -> EvaluationContext:
        """Generators and domains in the order of display, for tables and figures."""
        return EvaluationContext.model_validate(self.described())

    @cached_property
    def experiment_context(self) -> EvaluationContext:
        """The same for experiments, with the names of merges and how intervals are resampled."""
        return self.context.model_copy(
            update={
                "variants": {name: self.label(name) for name in self.variants},
                "resamples": self.params.evaluate.resamples,
                "seed": self.params.seed,
            }
        )

    def described(
        self, generator_keys: Iterable[str] = (), domain_keys: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return family, role, label, group and more keys of all generators and domains, where given."""
        of_generators = {"family", "role", "label", "group", *generator_keys}
        of_domains = {"role", "label", *domain_keys}
        return {
            "generators": {
                name: one.model_dump(mode="json", include=of_generators, exclude_none=True)
                for name, one in self.params.generators.items()
            },
            "domains": {
                name: one.model_dump(
                    mode="json",
                    # The index of a data set says who is on its images.
                    include=of_domains - ({"identity"} if one.dataset else set()),
                    exclude_none=True,
                )
                for name, one in self.params.domains.items()
            },
        }


def receipt(package: str) -> Path:
    """Return the receipt of a pinned package."""
    return RAW / f"{package}.json"


def source_folder(source: PackageSource | FolderSource) -> Path:
    """Return the folder that the images or models of a source lie in."""
    return RAW / source.package if isinstance(source, PackageSource) else Path(source.folder)
