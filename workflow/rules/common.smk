"""What all rules share: the checked params, and the stages of the plan that rules are of."""

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

from r2m import params
from r2m.data.folder_state import ImageFolders
from r2m.datasets.roots import link_roots
from r2m.datasets.slices import Indexes
from r2m.errors import R2MError
from r2m.input_files import check_inputs
from r2m.options import read_yaml
from r2m.plan.plan import PINS
from r2m.workflow import Workflow

# They live and die with Snakemake's record of the params that outputs were made with.
FOLDERS = ImageFolders(Path(".snakemake/image_folders"))
INDEXES = Indexes(Path(".snakemake/indexes"))
CONTENTS = threading.Thread(target=FOLDERS.read_contents, daemon=True)

try:
    # Snakemake's own reader knows neither 1e-5 nor a key that stands twice. `--config` goes before the file.
    content = read_yaml("params.yaml")
    update_config(content, config)
    config.update(content)
    PARAMS = params.parse(config)
    RUN = Workflow(PARAMS)
    # A job of its own need not list the folders again.
    if workflow.is_main_process:
        check_inputs(PARAMS, FOLDERS.count, INDEXES)
        link_roots(PARAMS.datasets, RUN.plan.datasets, RUN.plan.root)
except R2MError as error:
    raise WorkflowError(str(error)) from None

S = SimpleNamespace(**RUN.main)


wildcard_constraints:
    **RUN.wildcards,


def reads(stage):
    """Input function: the files that a job of a stage reads."""
    return lambda wildcards: stage.job(**wildcards).reads


def settled(stage):
    """Input function: the files that have to be there before a job of a stage, however new they are."""
    return ancient(lambda wildcards: list(map(str, stage.job(**wildcards).settled)))


def writes(stage):
    """Patterns of the files that a stage writes, its folders, and what the report shows of them."""
    return [flagged(stage, key, pattern) for key, pattern in stage.outputs.items()]


def flagged(stage, key, pattern):
    if key in stage.folders:
        return directory(pattern)
    if key not in stage.report:
        return pattern
    shown = stage.report[key]
    caption = f"../report/{shown.caption}.rst"
    return report(
        pattern, caption=caption, category=shown.category, labels=shown.labels
    )


def gpus(stage):
    """Resource function: the GPUs that a job of a stage takes."""
    return lambda wildcards: stage.job(**wildcards).gpus


def memory(stage):
    """Resource function: the memory of a job, and more when it is tried again, since it may have failed for that."""
    return lambda wildcards, attempt: stage.memory * attempt


def call(stage):
    """Params of a rule: the job, its arguments as plain values, which Snakemake compares, and where its time goes."""
    return {
        "job": lambda wildcards: stage.job(**wildcards),
        "record": lambda wildcards: stage.job(**wildcards).record,
        "benchmark": stage.benchmark if stage.is_benchmarked else "",
    }


def pins_of(wildcards):
    """The pinned packages, compared by content and not by the time of their file."""
    return PINS.read_text(encoding="utf-8")


def images_state(image_set):
    """What tells that an image set has to be made again: other images in its folders, or its own are gone."""
    if not workflow.is_main_process:
        return ""
    digest = FOLDERS.digest(RUN.plan.own_folders(image_set))
    manifest = RUN.plan.manifest(image_set)
    lost = FOLDERS.times_lost(str(manifest.parent / "images"), str(manifest))
    return f"{digest} {lost}"


def index_state(dataset):
    """What tells that a data set has to be validated again: other rows of its index."""
    if not workflow.is_main_process:
        return ""
    return INDEXES(PARAMS.datasets[dataset].index).state()


def outdated(image_set):
    """Whether the digest of an image set's slices is not that of the index, or not there."""
    options = PARAMS.datasets[PARAMS.dataset_of[image_set]]
    digest = INDEXES(options.index).digest(PARAMS.parts_of(image_set), options)
    path = RUN.plan.slice_digest(image_set)
    return not path.is_file() or path.read_text(encoding="utf-8").strip() != digest


# Only these digests are outputs. The others are files like any other, for Snakemake makes everything again that is
# made of what a job after validation makes, whenever validation runs.
OUTDATED = [
    name for name in PARAMS.dataset_of if not workflow.is_main_process or outdated(name)
]
