"""What all rules share: the checked params, names of things, and digests of code."""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

from r2m import params
from r2m.data.folder_state import ImageFolders
from r2m.digest import code_digest
from r2m.errors import R2MError
from r2m.experiments import derived
from r2m.forge.registry import module_of
from r2m.input_files import check_inputs
from r2m.merge import registry
from r2m.models.weight_files import locate
from r2m.options import FAMILIES, combinations

# It lives and dies with Snakemake's record of the params that outputs were made with.
FOLDERS = ImageFolders(Path(".snakemake/image_folders"))

try:
    PARAMS = params.parse(config)
    # A job of its own need not list the folders again.
    if workflow.is_main_process:
        check_inputs(PARAMS, FOLDERS.count)
except R2MError as error:
    raise WorkflowError(str(error)) from None

# The environment need not be activated: jobs find the command beside the interpreter that runs Snakemake.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.getenv('PATH', '')}"
)

DOMAINS = list(PARAMS.domains)
GENERATORS = list(PARAMS.generators)
TRAIN_GENERATORS = PARAMS.train_generators
SETS = [*DOMAINS, *GENERATORS]
MEMBERS = PARAMS.specialist_members
VARIANTS = PARAMS.variants
HAS_TRUNK = PARAMS.backbone.trainable_blocks != "all"
DETECTOR = PARAMS.faces.detector


wildcard_constraints:
    package="|".join(["celeba", "orl", "faces", "clip"]),
    domain="|".join(DOMAINS),
    generator="|".join(GENERATORS),
    set="|".join(SETS),
    specialist="|".join(MEMBERS),
    variant="|".join(VARIANTS),
    kind="specialist|joint|merge",
    seed=r"\d+",


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
    detector, embedder = (
        shlex.quote(f"{folder}/{name}.onnx") for name in ("yunet", "sface")
    )
    return f"--detector {detector} --embedder {embedder}"


def manifest_of(image_set):
    stage = "faces" if image_set in DOMAINS else "forged"
    return f"results/{stage}/{image_set}/manifest.parquet"


def images_of(image_set):
    return str(Path(manifest_of(image_set)).parent / "images")


def trunk_of(image_set):
    stage = "faces" if image_set in DOMAINS else "forged"
    return f"results/trunk/{stage}/{image_set}/activations.safetensors"


def members_of(image_sets):
    """Files and folders that training on image sets reads."""
    return [
        *(manifest_of(name) for name in image_sets),
        *(trunk_of(name) if HAS_TRUNK else images_of(name) for name in image_sets),
    ]


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


def replaced_inputs(image_sets, folder, replaced):
    """Like `inputs_of`, with those of an experiment's folder for the image sets in `replaced`."""
    own = [name in replaced for name in image_sets]
    manifests, trunks = map(manifest_of, image_sets), map(trunk_of, image_sets)

    def placed(paths):
        return [
            path.replace("results/", f"{folder}/", 1) if is_own else path
            for path, is_own in zip(paths, own)
        ]

    return {
        "manifests": placed(manifests),
        "trunks": placed(trunks) if HAS_TRUNK else [],
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


def specialist_files(kind, seed):
    """Specialist → its file of one kind (model, task_vector, head), of one seed."""
    return {
        name: f"results/specialists/{name}/seed{seed}/{kind}.safetensors"
        for name in MEMBERS
    }


def files_of(kind, seed):
    """All specialists' files of one kind and seed."""
    return list(specialist_files(kind, seed).values())


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


PINS = "data/sources.txt"


def pins_of(wildcards):
    """The lines of data/sources.txt, so that they are compared by content and not by time."""
    return Path(PINS).read_text(encoding="utf-8")


def base_weights():
    """Receipt or file that the base weights are made from."""
    weights = PARAMS.backbone.weights
    return package_receipts(weights) or [str(locate(Path(weights.file))[0])]


def weights_path(wildcards):
    weights = PARAMS.backbone.weights
    if hasattr(weights, "package"):
        return "data/raw/clip/clip_encoder.int8.onnx"
    return weights.file


def domain_arguments(wildcards):
    domain = PARAMS.domains[wildcards.domain]
    limit = f" --limit {domain.limit}" if domain.limit else ""
    frames = {None: "", True: " --frames", False: " --no-frames"}[domain.frames]
    return f"--role {domain.role} --identity {domain.identity}{limit}{frames}"


def own_folders(image_set):
    """The user's folders behind a domain or generator, as the commands take them."""
    if image_set in DOMAINS:
        source = PARAMS.domains[image_set].images
        return [source.folder] if hasattr(source, "folder") else []
    options = PARAMS.generators[image_set]
    return [folder for folder in (options.images, options.reals) if folder]


def images_state(image_set):
    """What tells that an image set has to be made again: other images in its folders, or its own are gone."""
    if not workflow.is_main_process:
        return ""
    digest = FOLDERS.digest(own_folders(image_set))
    lost = FOLDERS.times_lost(images_of(image_set), manifest_of(image_set))
    return f"{digest} {lost}"


CONTENTS = threading.Thread(target=FOLDERS.read_contents, daemon=True)


def trained_folders(generator):
    """Manifests of the folders of fakes that are trained on, where an unseen one may show the same people."""
    options = PARAMS.generators[generator]
    if options.role == "train" or options.images is None:
        return []
    folders = [name for name in TRAIN_GENERATORS if PARAMS.generators[name].images]
    return [manifest_of(name) for name in folders]


def residuals_of(variant, seed):
    """Specialist → the file of its truncated residual."""
    return {
        name: f"results/residuals/{variant}/seed{seed}/{name}.safetensors"
        for name in MEMBERS
    }


def needs_statistics(variant):
    return registry.get(VARIANTS[variant]).statistics is not None


def statistics_of(variant, seed):
    """Specialist → what the variant's method needs of its training data; empty where it needs nothing."""
    if not needs_statistics(variant):
        return {}
    return {
        name: f"results/statistics/{variant}/seed{seed}/{name}.safetensors"
        for name in MEMBERS
    }


def statistics_images(wildcards):
    """How many images the statistics are made of: an option of the method."""
    method = registry.get(VARIANTS[wildcards.variant])
    default = method.options.model_fields["images"].default
    return PARAMS.merge.methods[wildcards.variant].options.get("images", default)


def merge_parts(wildcards):
    """What a variant's merge reads: task vectors and statistics, or the parts that R²M made of them."""
    variant, seed = wildcards.variant, wildcards.seed
    if VARIANTS[variant] != "r2m":
        return {
            "task_vectors": files_of("task_vector", seed),
            "statistics": list(statistics_of(variant, seed).values()),
        }
    return {
        "core": f"results/real/{variant}/seed{seed}/core.safetensors",
        "residuals": list(residuals_of(variant, seed).values()),
    }


def merge_parts_arguments(wildcards, input):
    variant, seed = wildcards.variant, wildcards.seed
    if VARIANTS[variant] != "r2m":
        task_vectors = repeated("--task-vector", specialist_files("task_vector", seed))
        statistics = repeated("--statistics", statistics_of(variant, seed))
        return f"{task_vectors} {statistics}"
    residuals = repeated("--residual", residuals_of(variant, seed))
    return f"--real {input.core} {residuals}"


SEEDS = PARAMS.seeds
# Figures of single merges and the model card are of this one.
FIRST_SEED = SEEDS[0]
# Joint model → its name in the tables.
JOINT = {"joint": "Joint training"}
if PARAMS.joint.multiclass:
    JOINT["joint_multiclass"] = "Joint training, multi-class"
# Kind of a model → the models that every seed has one of.
MODELS = {
    "specialist": list(MEMBERS),
    "joint": list(JOINT),
    "merge": list(VARIANTS),
}
PROBE = "results/probe/head.safetensors"
BASE_SCORES = "results/scores/base/base/scores.parquet"


def model_file(kind, model, seed):
    """The checkpoint of a trained or merged model."""
    folder = {
        "specialist": f"results/specialists/{model}",
        "joint": f"results/{model}",
        "merge": f"results/merged/{model}",
    }[kind]
    return f"{folder}/seed{seed}/model.safetensors"


def scores_of(kind, model):
    """Scores of a model, a file a seed."""
    return [
        f"results/scores/{kind}/{model}/seed{seed}/scores.parquet" for seed in SEEDS
    ]


SCORES = [
    BASE_SCORES,
    *(
        path
        for kind, models in MODELS.items()
        for model in models
        for path in scores_of(kind, model)
    ),
]


def model_arguments(wildcards):
    """How the tables describe a model."""
    label = JOINT.get(wildcards.model)
    if wildcards.kind == "specialist" and wildcards.model in PARAMS.generators:
        label = PARAMS.generators[wildcards.model].label
    method = ""
    if wildcards.kind == "merge":
        label = PARAMS.merge.methods[wildcards.model].label
        method = f" --method {VARIANTS[wildcards.model]}"
    shown = shlex.quote(label or wildcards.model)
    return f"--seed {wildcards.seed} --label {shown}{method}"


TABLES = [
    f"results/tables/{name}"
    for name in (
        "auc.csv",
        "models.csv",
        "dumbbell.csv",
        "intervals.csv",
        "delong.csv",
        "reliability.csv",
        "video.csv",
        "cross_auc.csv",
        "main.md",
        "main.tex",
        "main_intervals.md",
        "main_intervals.tex",
        "metrics.json",
    )
]


def tables_arguments():
    """How many resamples the tables take, and which model they test the others against."""
    reference = f" --reference {PARAMS.reference}" if PARAMS.reference else ""
    resamples = PARAMS.evaluate.resamples
    return f"--resamples {resamples} --seed {PARAMS.seed}{reference}"


def context(generator_keys=(), domain_keys=()):
    """Generators and domains as tables, figures and the data card take them, in the order of display."""
    generators = {
        name: one.model_dump(
            mode="json", include={"family", "role", "label", *generator_keys}
        )
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
    "intervals",
    "reliability",
    "tune",
    *(f"pipeline/{variant}" for variant in R2M_VARIANTS),
    *(f"spectra/{variant}" for variant in R2M_VARIANTS),
]
FIGURES = [
    f"results/figures/{name}.{suffix}" for name in FIGURE_NAMES for suffix in FORMATS
]
CONTACT_SHEETS = [f"results/contact/{name}.png" for name in GENERATORS]
DATA_CARD = "results/data_card.md"
MODEL_CARD = "results/model_card.md"
SETTINGS = "results/settings.md"
RUNTIMES = "results/runtimes.csv"
# The merge that the model card is of.
REFERENCE = PARAMS.reference or [*R2M_VARIANTS, *VARIANTS][0]
# What the report shows as a page → its caption, category and name there.
PAGES = {
    "results/tables/main.md": ("main_table", "Results", "Mean AUC of every model"),
    "results/tables/main_intervals.md": (
        "main_intervals",
        "Results",
        "Mean AUC with confidence intervals (table)",
    ),
    "results/tables/auc.csv": ("auc", "Results", "All metrics on every test set"),
    "results/tables/delong.csv": ("delong", "Results", "DeLong's tests"),
    "results/tables/cross_auc.csv": (
        "cross_auc",
        "Results",
        "Fakes against reals of another domain",
    ),
    DATA_CARD: ("data_card", "Data and model", "Data card"),
    MODEL_CARD: ("model_card", "Data and model", "Model card"),
    SETTINGS: ("settings", "Settings", "Params, versions and digests"),
    RUNTIMES: ("runtimes", "Settings", "Runtimes"),
}
PAGE_FILES = [f"results/pages/{Path(path).stem}.html" for path in PAGES]
CARDS = [DATA_CARD, MODEL_CARD, SETTINGS, RUNTIMES]
REPORTED = [*TABLES, *FIGURES, *CONTACT_SHEETS, *CARDS, *PAGE_FILES]


def page_outputs():
    """The pages, with what the report says of them."""
    outputs = []
    for path, (caption, category, name) in zip(PAGE_FILES, PAGES.values()):
        captioned = report(
            path,
            caption=f"../report/{caption}.rst",
            category=category,
            labels={"result": name},
        )
        outputs.append(captioned)
    return outputs


def params_that_ran():
    """The params in their own order, without merges that are not enabled: those leave no trace in results."""
    enabled = {name: PARAMS.merge.methods[name] for name in VARIANTS}
    merge = PARAMS.merge.model_copy(update={"methods": enabled})
    return PARAMS.model_copy(update={"merge": merge}).model_dump_json()


def figure_outputs(name, caption, category, **labels):
    """The three formats of a figure; the SVG goes into the report."""
    png, pdf, svg = (f"results/figures/{name}.{suffix}" for suffix in FORMATS)
    captioned = report(
        svg, caption=f"../report/{caption}.rst", category=category, labels=labels
    )
    return [png, pdf, captioned]


def without_suffix(wildcards, output):
    return Path(output[0]).with_suffix("")


ALL_SOURCES = [
    *(domain.images for domain in PARAMS.domains.values()),
    DETECTOR,
    PARAMS.backbone.weights,
]
ALL_PACKAGES = sorted(
    {source.package for source in ALL_SOURCES if hasattr(source, "package")}
)


def bench_inputs(wildcards):
    """What experiments read that merge and score in memory."""
    return {
        **inputs_of(SETS),
        "initial_head": INITIAL_HEAD,
        "task_vectors": files_of("task_vector", wildcards.seed),
        "heads": files_of("head", wildcards.seed),
    }


def bench_arguments(wildcards, input):
    """Command-line arguments for what `bench_inputs` put into a rule's input."""
    task_vectors = repeated(
        "--task-vector", specialist_files("task_vector", wildcards.seed)
    )
    heads = repeated("--head", specialist_files("head", wildcards.seed))
    return f"{inputs_arguments(wildcards, input)} {task_vectors} {heads} --initial-head {input.initial_head}"


def chosen_options(variants):
    """Function of wildcards: what was chosen on val for variants, with the wildcards' seed."""
    return lambda wildcards: [
        f"results/tune/{variant}/seed{wildcards.seed}/chosen.json"
        for variant in variants
    ]


EXPERIMENTS = PARAMS.experiments.enabled
VARIANT_LABELS = {name: PARAMS.merge.methods[name].label or name for name in VARIANTS}
EXPERIMENT_CONTEXT = json.dumps(
    {
        **json.loads(context()),
        "variants": VARIANT_LABELS,
        "resamples": PARAMS.evaluate.resamples,
        "seed": PARAMS.seed,
    }
)


def experiment_input(name):
    """What an experiment's table is made of: its scores, a file a seed, or the long table of all models."""
    if name == "inversion":
        return ["results/tables/auc.csv"]
    return [f"results/experiments/{name}/seed{seed}/scores.parquet" for seed in SEEDS]


def experiment_methods(name):
    """Modules of the merging methods that an experiment runs."""
    variants = getattr(PARAMS.experiments, name).variants
    return [f"r2m.merge.methods.{VARIANTS[one]}" for one in variants if one in VARIANTS]


def variant_modules(variants):
    """Modules of the merging methods of some variants."""
    return [f"r2m.merge.methods.{VARIANTS[name]}" for name in variants]


def variant_options(variants):
    """Merge variants by name, with their grids, as commands take them."""
    return {
        name: PARAMS.merge.methods[name].model_dump(
            mode="json", exclude={"enabled", "label"}
        )
        for name in variants
    }


def experiment_files(name):
    """Tables and figures of one experiment."""
    folder = f"results/experiments/{name}"
    tables = [f"{folder}/table.{suffix}" for suffix in ("csv", "md", "tex")]
    return [*tables, *(f"{folder}/figure.{suffix}" for suffix in FORMATS)]


PAPER = [path for name in EXPERIMENTS for path in experiment_files(name)]


def experiment_tables(name):
    """The three formats of an experiment's table, and the page of it that goes into the report."""
    page = report(
        f"results/experiments/{name}/table.html",
        caption=f"../report/{name}.rst",
        category="Experiments",
        labels={"experiment": name, "what": "table"},
    )
    return [*experiment_files(name)[:3], page]


def experiment_figures(name):
    """The three formats of an experiment's figure; the SVG goes into the report."""
    png, pdf, svg = experiment_files(name)[3:]
    captioned = report(
        svg,
        caption=f"../report/{name}.rst",
        category="Experiments",
        labels={"experiment": name, "what": "figure"},
    )
    return [png, pdf, captioned]
