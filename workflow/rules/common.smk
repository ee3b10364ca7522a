"""What all rules share: the checked params, names of things, and digests of code."""

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from r2m import params as r2m_params
from r2m.data.check import check_inputs, folders_digest
from r2m.digest import code_digest
from r2m.errors import R2MError
from r2m.forge.registry import module_of

try:
    r2m_params.read_yaml("params.yaml")
    # Snakemake's own reader takes 1e-5 for text.
    config = r2m_params.with_floats(config)
    PARAMS = r2m_params.parse(config)
    check_inputs(PARAMS)
except R2MError as error:
    raise WorkflowError(str(error)) from None

# The environment need not be activated: jobs run with the interpreter that runs Snakemake.
R2M = f"{sys.executable} -m r2m"

DOMAINS = list(PARAMS.domains)
GENERATORS = list(PARAMS.generators)
TRAIN_GENERATORS = PARAMS.train_generators
SETS = [*DOMAINS, *GENERATORS]
MEMBERS = PARAMS.specialist_members
VARIANTS = {
    name: variant.method or name for name, variant in PARAMS.merge.methods.items()
}
HAS_TRUNK = PARAMS.backbone.trainable_blocks != "all"
DETECTOR = PARAMS.faces.detector


wildcard_constraints:
    package="|".join(["celeba", "orl", "faces", "clip"]),
    domain="|".join(DOMAINS),
    generator="|".join(GENERATORS),
    set="|".join(SETS),
    specialist="|".join(MEMBERS),
    variant="|".join(VARIANTS),
    kind="base|specialist|joint|merge",


def as_json(section, **kwargs):
    """One section of the params as a command-line argument: defaults included, keys sorted."""
    return json.dumps(section.model_dump(mode="json", **kwargs), sort_keys=True)


def package_receipts(*sources):
    """Receipts of the pinned packages among `sources`."""
    return [
        f"data/raw/{source.package}.json"
        for source in sources
        if hasattr(source, "package")
    ]


def source_folder(source):
    """Folder that the images or models of a source lie in."""
    return f"data/raw/{source.package}" if hasattr(source, "package") else source.folder


def detector_arguments():
    """Options that name the detector's and the embedder's files."""
    if DETECTOR == "none":
        return ""
    folder = source_folder(DETECTOR)
    return f"--detector {folder}/yunet.onnx --embedder {folder}/sface.onnx"


def manifest_of(image_set):
    stage = "faces" if image_set in DOMAINS else "forged"
    return f"results/{stage}/{image_set}/manifest.parquet"


def trunk_of(image_set):
    stage = "faces" if image_set in DOMAINS else "forged"
    return f"results/trunk/{stage}/{image_set}/activations.safetensors"


def training_sets(generators):
    """Image sets that training on `generators` reads."""
    return [PARAMS.train_domain, *generators]


def inputs_of(image_sets):
    """Manifests of image sets, and their cached activations where there are any."""
    return {
        "manifests": [manifest_of(name) for name in image_sets],
        "trunks": [trunk_of(name) for name in image_sets] if HAS_TRUNK else [],
        "base": "results/base/base.safetensors",
    }


def inputs_arguments(wildcards, input):
    """Command-line arguments for what `inputs_of` put into a rule's input."""
    manifests = " ".join(f"--manifest {path}" for path in input.manifests)
    trunks = " ".join(f"--trunk {path}" for path in input.get("trunks", []))
    return f"{manifests} {trunks} --base {input.base}"


def repeated(option, values):
    """`--option value` for every value; a mapping gives `--option key=value`."""
    if isinstance(values, dict):
        values = [f"{key}={value}" for key, value in values.items()]
    return " ".join(f"{option} {value}" for value in values)


def specialist_files(kind):
    """Specialist → its file of one kind (model, task_vector, head)."""
    return {name: f"results/specialists/{name}/{kind}.safetensors" for name in MEMBERS}


INITIAL_HEAD = "results/base/initial_head.safetensors"
COMPUTE = f"--device {PARAMS.device} --precision {PARAMS.precision}"
BACKBONE = as_json(PARAMS.backbone)


def forge_modules(generator):
    """Modules that making a generator's images runs."""
    forge = PARAMS.generators[generator].forge
    return ["r2m.cli.forge", *([module_of(forge)] if forge else [])]


def method_modules(command):
    """Function of wildcards: digest of a command and of the variant's merging method."""
    return lambda wildcards: code_digest(
        [f"r2m.cli.{command}", f"r2m.merge.methods.{VARIANTS[wildcards.variant]}"]
    )


PINS = f"{workflow.basedir}/data/sources.txt"


def pins_of(wildcards):
    """The lines of data/sources.txt, so that they are compared by content and not by time."""
    return Path(PINS).read_text(encoding="utf-8")


def base_weights():
    """Receipt or file that the base weights are made from."""
    weights = PARAMS.backbone.weights
    return package_receipts(weights) or [weights.file]


def weights_path():
    weights = PARAMS.backbone.weights
    if hasattr(weights, "package"):
        return "data/raw/clip/clip_encoder.int8.onnx"
    return weights.file


def domain_arguments(wildcards):
    domain = PARAMS.domains[wildcards.domain]
    limit = f" --limit {domain.limit}" if domain.limit else ""
    return f"--role {domain.role} --identity {domain.identity}{limit}"


def own_folders(image_set):
    """The user's folders behind a domain or generator, as the commands take them."""
    if image_set in DOMAINS:
        source = PARAMS.domains[image_set].images
        return [source.folder] if hasattr(source, "folder") else []
    options = PARAMS.generators[image_set]
    return [folder for folder in (options.images, options.reals) if folder]


def residuals_of(variant):
    """Specialist → the file of its truncated residual."""
    return {
        name: f"results/residuals/{variant}/{name}.safetensors" for name in MEMBERS
    }


def merge_parts(wildcards):
    """What a variant's merge reads: task vectors, or the parts that R²M made of them."""
    if VARIANTS[wildcards.variant] != "r2m":
        return {"task_vectors": list(specialist_files("task_vector").values())}
    return {
        "core": f"results/real/{wildcards.variant}/core.safetensors",
        "residuals": list(residuals_of(wildcards.variant).values()),
    }


def merge_parts_arguments(wildcards, input):
    if VARIANTS[wildcards.variant] != "r2m":
        return repeated("--task-vector", specialist_files("task_vector"))
    residuals = repeated("--residual", residuals_of(wildcards.variant))
    return f"--real {input.core} {residuals}"


MODELS = {
    "base": {"base": "results/probe/head.safetensors"},
    "specialist": {
        name: f"results/specialists/{name}/model.safetensors" for name in MEMBERS
    },
    "joint": {"joint": "results/joint/model.safetensors"},
    "merge": {name: f"results/merged/{name}/model.safetensors" for name in VARIANTS},
}
SCORES = [
    f"results/scores/{kind}/{model}/scores.parquet"
    for kind, models in MODELS.items()
    for model in models
]


def model_arguments(wildcards):
    """How the tables describe a model."""
    label = {"base": "Base (linear probe)", "joint": "Joint training"}.get(wildcards.model)
    if wildcards.kind == "specialist" and wildcards.model in PARAMS.generators:
        label = PARAMS.generators[wildcards.model].label
    method = ""
    if wildcards.kind == "merge":
        label = PARAMS.merge.methods[wildcards.model].label
        method = f" --method {VARIANTS[wildcards.model]}"
    return f"--label {json.dumps(label or wildcards.model)}{method}"


TABLES = [
    f"results/tables/{name}"
    for name in ("auc.csv", "models.csv", "dumbbell.csv", "main.md", "main.tex", "metrics.json")
]


def context(generator_keys=(), domain_keys=()):
    """Generators and domains as tables, figures and the data card take them, in the order of display."""
    generators = {
        name: one.model_dump(mode="json", include={"family", "role", "label", *generator_keys})
        for name, one in PARAMS.generators.items()
    }
    domains = {
        name: one.model_dump(mode="json", include={"role", "label", *domain_keys})
        for name, one in PARAMS.domains.items()
    }
    return json.dumps({"generators": generators, "domains": domains})


R2M_VARIANTS = [name for name, method in VARIANTS.items() if method == "r2m"]
FORMATS = ("png", "pdf", "svg")
FIGURE_NAMES = [
    "heatmap",
    "dumbbell",
    "tune",
    *(f"spectra/{variant}" for variant in R2M_VARIANTS),
]
FIGURES = [f"results/figures/{name}.{suffix}" for name in FIGURE_NAMES for suffix in FORMATS]
CONTACT_SHEETS = [f"results/contact/{name}.png" for name in GENERATORS]
DATA_CARD = "results/data_card.md"


def figure_outputs(name, caption, category, **labels):
    """The three formats of a figure; the SVG goes into the report."""
    png, pdf, svg = (f"results/figures/{name}.{suffix}" for suffix in FORMATS)
    return [png, pdf, report(svg, caption=f"../report/{caption}.rst", category=category, labels=labels)]


def without_suffix(wildcards, output):
    return Path(output[0]).with_suffix("")


ALL_SOURCES = [
    *(domain.images for domain in PARAMS.domains.values()),
    DETECTOR,
    PARAMS.backbone.weights,
]
ALL_PACKAGES = sorted({source.package for source in ALL_SOURCES if hasattr(source, "package")})
FAMILIES = r2m_params.FAMILIES


def stage_targets():
    """Stage of dvc.yaml → the files that it makes; a stage that the params leave out makes none."""
    stages = {
        "sources": [f"data/raw/{name}.json" for name in ALL_PACKAGES],
        "base": ["results/base/base.safetensors", INITIAL_HEAD],
        "members": [f"results/members/{name}.json" for name in TRAINED_ON],
        "joint": ["results/joint/model.safetensors", "results/probe/head.safetensors"],
        "reference_scores": [
            "results/scores/base/base/scores.parquet",
            "results/scores/joint/joint/scores.parquet",
        ],
        "report": [*TABLES, *FIGURES, *CONTACT_SHEETS, DATA_CARD],
    }
    for name in SETS:
        stages[f"images_{name}"] = [manifest_of(name)]
        stages[f"trunk_{name}"] = [trunk_of(name)] if HAS_TRUNK else []
    for name in [*GENERATORS, *FAMILIES]:
        there = name in MEMBERS
        files = [specialist_files(kind)[name] for kind in ("model", "task_vector", "head")] if there else []
        scores = [f"results/scores/specialist/{name}/scores.parquet"] if there else []
        stages[f"specialist_{name}"] = files
        stages[f"specialist_scores_{name}"] = scores
    for name in VARIANTS:
        stages[f"merge_{name}"] = [f"results/merged/{name}/model.safetensors"]
        stages[f"merge_scores_{name}"] = [f"results/scores/merge/{name}/scores.parquet"]
    return stages


# Model trained → the generators it is trained on; every name of DVC's stages is there.
TRAINED_ON = {
    **{name: MEMBERS.get(name, []) for name in [*GENERATORS, *FAMILIES]},
    "joint": TRAIN_GENERATORS,
}
STAGES = stage_targets()


def code_of_stages():
    """Stage of dvc.yaml → digest of its commands' code and of the files that hold its rules."""

    def digest(phases, *commands):
        return "".join(map(rules_digest, phases.split())) + code_digest(commands)

    def command(name):
        return f"r2m.cli.{name}"

    figures = [command(f"figure_{name}") for name in ("heatmap", "dumbbell", "spectra", "tune")]
    merging = [command(name) for name in ("tune", "real_component", "residual", "merge")]
    return {
        "sources": digest("sources", command("sources")),
        "base": digest("sources", command("base")),
        "faces": digest("faces", command("faces")),
        "trunk": digest("trunk", command("trunk")),
        "members": digest("stages", command("members")),
        "finetune": digest("finetune", command("finetune"), command("probe")),
        "specialist": digest("finetune", command("finetune"), command("task_vector")),
        "score": digest("evaluate", command("score")),
        "report": digest(
            "evaluate report",
            *figures,
            *map(command, ("tables", "contact_sheet", "data_card")),
        ),
        **{f"forge-{name}": digest("forge", *forge_modules(name)) for name in GENERATORS},
        **{
            f"merge-{name}": digest("merge", *merging, f"r2m.merge.methods.{method}")
            for name, method in VARIANTS.items()
        },
    }


def rules_digest(phase):
    """Digest of the rules of one file; comments and line breaks do not count."""
    import hashlib
    import io
    import tokenize

    text = Path(workflow.basedir, "workflow", "rules", f"{phase}.smk").read_text(encoding="utf-8")
    skipped = (tokenize.COMMENT, tokenize.NL)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kept = "\n".join(token.string for token in tokens if token.type not in skipped)
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


CODE = code_of_stages()
CODE_FILES = [f"results/code/{stage}" for stage in CODE]


# Folders that stages of dvc.yaml put out although the params may leave nothing to be made there.
STAGE_FOLDERS = [
    "data/raw",
    *(str(Path(trunk_of(name)).parent) for name in SETS),
    *(f"results/{folder}/{name}" for folder in ("real", "residuals") for name in VARIANTS),
    *(
        f"results/{folder}/{name}"
        for folder in ("specialists", "scores/specialist")
        for name in [*GENERATORS, *FAMILIES]
    ),
]


def prune():
    """Remove results of names that are no longer in params.yaml, so that no table can show them.

    The folders that DVC expects are there afterwards, if only empty.
    """
    keep = {
        "code": CODE,
        "faces": DOMAINS,
        "forged": GENERATORS,
        "contact": GENERATORS,
        "trunk/faces": DOMAINS,
        "trunk/forged": GENERATORS,
        "members": TRAINED_ON,
        "specialists": MEMBERS,
        "tune": VARIANTS,
        "real": R2M_VARIANTS,
        "residuals": R2M_VARIANTS,
        "merged": VARIANTS,
        "figures/spectra": R2M_VARIANTS,
        **{f"scores/{kind}": models for kind, models in MODELS.items()},
    }
    arguments = " ".join(f"--keep {folder}={','.join(names)}" for folder, names in keep.items())
    shell(f"{R2M} prune --results results {arguments}")
    for folder in STAGE_FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)


def finish():
    """After a run outside DVC: write the report, tell DVC what is there, say where the tables are."""
    if "DVC_STAGE" in os.environ:
        return
    snakemake = f"{sys.executable} -m snakemake --snakefile {workflow.main_snakefile}"
    done = shell(f"{snakemake} --dry-run --quiet rules -- all 2>&1 || true", read=True)
    if "Nothing to be done" not in done:
        return
    shell(f"{snakemake} --report results/report.html >results/logs/report.log 2>&1 || true")
    if Path(".dvc").is_dir():
        shell(f"{sys.executable} -m dvc commit --force --quiet")
    logger.info("Tables: results/tables. Figures: results/figures. Report: results/report.html.")


def images_of(image_set):
    return str(Path(manifest_of(image_set)).parent / "images")


def members_of(image_sets):
    """Files and folders that training on image sets reads."""
    return [
        *(manifest_of(name) for name in image_sets),
        *(trunk_of(name) if HAS_TRUNK else images_of(name) for name in image_sets),
    ]
