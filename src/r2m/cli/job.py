"""`r2m job`: one stage of the workflow by hand, with the options of params.yaml."""

import logging
import os
import sys
import time
import traceback
from pathlib import Path

import click

from r2m.cli.gpus import claim
from r2m.cli.measure import write_benchmark
from r2m.cli.process import guarded, leave, set_up_logging
from r2m.cli.warm import run_warm
from r2m.errors import R2MError
from r2m.plan.stage import Job

logger = logging.getLogger(__name__)

PARAMS = click.option(
    "--params",
    "path",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The configuration.",
)


@click.command()
@click.argument("stage")
@click.argument("words", nargs=-1, metavar="[WILDCARD=VALUE]...")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@PARAMS
def command(stage: str, words: tuple[str, ...], threads: int, path: Path) -> None:
    """Run the jobs of one stage, such as `r2m job finetune gan seed=0`, whatever Snakemake thinks of them.

    Without WILDCARD=VALUE all jobs of the stage run. What they read has to be there already.
    """
    run_stage(stage, words, threads, path)


def run_stage(stage: str, words: tuple[str, ...], threads: int, path: Path) -> None:
    """Run the jobs of a stage that `words` pick.

    Raises:
        R2MError: params.yaml is wrong, there is no such stage or job, or the job fails.
    """
    from r2m.datasets.roots import link_roots
    from r2m.options import nearest
    from r2m.params import load
    from r2m.workflow import Workflow

    workflow = Workflow(load(path))
    stages = workflow.stages
    if stage not in stages:
        raise R2MError(f"unknown stage {stage!r}{nearest(stage, stages)}")
    link_roots(workflow.params.datasets, workflow.plan.datasets, workflow.plan.root)
    for wildcards in stages[stage].matching(words):
        logger.info("%s", " ".join([stage, *(f"{name}={value}" for name, value in wildcards.items())]))
        job = stages[stage].job(**wildcards)
        missing = [file for file in job.reads if not Path(file).exists()]
        if missing:
            raise R2MError(f"{missing[0]}: no such file; `snakemake --cores all -- {missing[0]}` makes it")
        job.run(threads)


def run_logged(job: Job, threads: int, log: str, benchmark: str) -> None:
    """Run a job of Snakemake's, all output in a log file; bad input ends it with one line and 1.

    What it took is written to the file `benchmark`, unless that is empty.
    """
    code = run_warm(_run, job, threads, log, benchmark) if threads == 1 else None
    if code is None:
        _run(job, threads, log, benchmark)
    leave(code or 0)


def _run(job: Job, threads: int, log: str, benchmark: str) -> None:
    """Run a job in this process, and end it."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    set_up_logging()

    def run() -> None:
        start = time.monotonic()
        if job.gpus:
            claim(job.gpus)
        job.run(threads)
        if benchmark:
            write_benchmark(Path(benchmark), time.monotonic() - start)

    try:
        guarded(run)
    except Exception:
        traceback.print_exc()
        leave(1)
    leave(0)
