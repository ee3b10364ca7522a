"""`r2m finetune`: train one specialist with the options of params.yaml."""

from pathlib import Path

import click

from r2m.cli.job import PARAMS, run_stage


@click.command()
@click.argument("specialist")
@click.option("--seed", type=click.IntRange(min=0), help="Default: all seeds of params.yaml.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@PARAMS
def command(specialist: str, seed: int | None, threads: int, path: Path) -> None:
    """Fine-tune one specialist of params.yaml by hand; its images have to be there already."""
    words = (f"specialist={specialist}", *(() if seed is None else (f"seed={seed}",)))
    run_stage("finetune", words, threads, path)
