"""Stages up to the cached activations: sources, base weights, validation, faces, fakes, the frozen trunk."""

from pathlib import Path

from r2m.models.weight_files import locate
from r2m.options import PackageSource
from r2m.plan.plan import BASE, INITIAL_HEAD, PINS, POOL, RAW, RESULTS, Plan, receipt, source_folder
from r2m.plan.stage import Captioned, Job, Stage

CLIP = RAW / "clip/clip_encoder.int8.onnx"


def stages(plan: Plan) -> list[Stage]:
    """Return the stages of a plan up to the cached activations."""
    return [source(plan), base(plan), validate(plan), faces(plan), pool(plan), forge(plan), trunk(plan)]


def source(plan: Plan) -> Stage:
    """Fetch the pinned packages."""
    outputs = {"files": "data/raw/{package}", "receipt": "data/raw/{package}.json"}

    def job(package: str) -> Job:
        values = {"package": package, "requirements": PINS}
        return Job("r2m.data.stages:source", {}, stage.paths(package=package), values)

    packages = [{"package": name} for name in plan.packages]
    stage = Stage("source", outputs, job, packages, folders=frozenset({"files"}))
    return stage


def base(plan: Plan) -> Stage:
    """Convert the base weights, and draw the head that all specialists start from."""
    weights = plan.params.backbone.weights

    def job() -> Job:
        if isinstance(weights, PackageSource):
            path, there = CLIP, []
        else:
            path, there = Path(weights.file), [locate(Path(weights.file))[0]]
        return Job(
            "r2m.models.stages:base",
            {},
            {"base": BASE, "head": INITIAL_HEAD},
            {
                "weights": path,
                "backbone": plan.params.backbone,
                "faces": plan.params.faces,
                "precision": plan.params.precision,
                "encodes": plan.params.encodes_reals,
                "seed": plan.params.seed,
            },
            also=there,
            receipts=plan.receipts(weights),
        )

    return Stage("base", {"base": str(BASE), "head": str(INITIAL_HEAD)}, job, memory=4000)


def validate(plan: Plan) -> Stage:
    """Check the index of each data set that image sets are of, and the files that it names."""
    files = {"json": "report.json", "html": "report.html", "index": "index.txt"}
    outputs = {key: f"results/validation/{{dataset}}/{file}" for key, file in files.items()}

    def job(dataset: str) -> Job:
        options = plan.params.datasets[dataset]
        return Job(
            "r2m.datasets.stages:validate",
            {},
            {"out": stage.paths(dataset=dataset)["json"].parent},
            {
                "index": Path(options.index),
                "root": None if options.root is None else Path(options.root),
                "contents": options.check == "contents",
                "allow_leakage": options.allow_leakage,
                "cache": RESULTS / f".state/validation/{dataset}",
                "name": dataset,
                "trained": plan.params.trained_domains(dataset),
            },
            settled=[Path(options.index)],
        )

    stage = Stage(
        "validate",
        outputs,
        job,
        [{"dataset": name} for name in plan.datasets],
        memory=2000,
        threads=2,
        priority=20,
        report={
            "html": Captioned("validation", "Data and model", {"result": "Validation of {dataset}"}),
        },
    )
    return stage


def faces(plan: Plan) -> Stage:
    """Find, align, group, split and encode the faces of each domain."""
    folder = "results/faces/{domain}"
    outputs = {
        "manifest": f"{folder}/manifest.parquet",
        "landmarks": f"{folder}/landmarks.parquet",
        "skipped": f"{folder}/skipped.csv",
        "crops": f"{folder}/crops",
        "images": f"{folder}/images",
    }

    def job(domain: str) -> Job:
        params = plan.params
        options = params.domains[domain]
        if options.images is None:
            (part,) = params.parts_of(domain)
            return plan.dataset_job(
                domain, "reals", stage.paths(domain=domain), {"domain": domain, "part": part}
            )
        return Job(
            "r2m.video.stages:faces",
            {},
            {"out": plan.folder(domain)},
            {
                "domain": domain,
                "images": source_folder(options.images),
                "options": options.model_copy(update={"label": None}),
                "faces": params.faces,
                "image_size": params.backbone.image_size,
                "seed": params.seed,
                **plan.detector_files(),
            },
            receipts=plan.receipts(options.images, params.faces.detector),
        )

    domains = [{"domain": name} for name in plan.domains]
    # On one core, beside the pool: a wait for a second one would leave the first idle.
    folders = frozenset({"crops", "images"})
    stage = Stage("faces", outputs, job, domains, folders=folders, memory=1500)
    return stage


def pool(plan: Plan) -> Stage:
    """Make the StyleGAN's pool of faces, if a forgery asks for it."""

    def job() -> Job:
        return Job(
            "r2m.forge.stages:pool",
            {},
            {"out": POOL},
            {"network": RAW / "stylegan", "seed": plan.params.seed, **plan.detector_files()},
            receipts=[receipt("stylegan"), *plan.receipts(plan.params.faces.detector)],
        )

    instances: list[dict[str, str]] = [{}] if plan.has_pool else []
    return Stage("pool", {"pool": str(POOL)}, job, instances, memory=2000, priority=10)


def forge(plan: Plan) -> Stage:
    """Make or import the fakes of each generator."""
    outputs = forged_outputs("results/forged/{generator}")

    def job(generator: str) -> Job:
        return plan.forge_job(generator, plan.fakes(generator), stage.paths(generator=generator))

    generators = [{"generator": name} for name in plan.generators]
    stage = Stage("forge", outputs, job, generators, folders=frozenset({"images"}), memory=1500)
    return stage


def forged_outputs(folder: str) -> dict[str, str]:
    """Return what making fakes writes into a folder."""
    return {
        "manifest": f"{folder}/manifest.parquet",
        "skipped": f"{folder}/skipped.csv",
        "images": f"{folder}/images",
    }


def trunk(plan: Plan) -> Stage:
    """Run the frozen blocks once over every image."""

    def job(stage: str, set: str) -> Job:
        return plan.trunk_job(plan.manifest(set), plan.trunk(set))

    sets = [{"stage": plan.folder(name).parent.name, "set": name} for name in plan.sets]
    return Stage(
        "trunk",
        {"activations": "results/trunk/{stage}/{set}/activations.safetensors"},
        job,
        sets if plan.has_trunk else [],
        memory=2000,
    )
