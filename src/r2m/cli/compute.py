"""Options that several commands share: where and how precisely to compute, and on which images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.models.options import BackboneOptions

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


def compute_options(command: Command) -> Command:
    """Add --device, --precision and --threads."""
    command = click.option("--threads", default=1, show_default=True, help="CPU threads.")(command)
    command = click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto")(
        command
    )
    return click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto")(
        command
    )


def bench_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what `r2m.cli.bench.bench_of` takes: images, base, task vectors and heads."""
    command = click.option("--initial-head", type=FILE, required=True, help="What all heads started from.")(
        command
    )
    command = named_files("--head", required=True, help="A specialist's head.")(command)
    command = named_files("--task-vector", required=True, help="A specialist's task vector.")(command)
    return inputs_options(compute_options(command))


def inputs_options(command: Command) -> Command:
    """Add --manifest and --trunk (several, in the same order), --base and --backbone."""
    return image_options(
        click.option("--trunk", "trunks", type=FILE, multiple=True, help="One a manifest, or none.")(command)
    )


def image_options(command: Command) -> Command:
    """Add --manifest (several), --base and --backbone."""
    described = "The section `backbone` as JSON."
    command = click.option("--backbone", type=Options(BackboneOptions), required=True, help=described)(
        command
    )
    command = click.option("--base", type=FILE, required=True, help="Base weights (safetensors).")(command)
    return click.option("--manifest", "manifests", type=FILE, multiple=True, required=True)(command)
