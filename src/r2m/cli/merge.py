"""`r2m merge`: merge checkpoints."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from r2m.cli.named_file import found_files, named_files, named_numbers
from r2m.cli.progress import Bar
from r2m.errors import R2MError
from r2m.merge.memory import map_large_blocks
from r2m.options import parse_yaml

_PATH = click.Path(path_type=Path)
# Of the options in these groups a merge takes one.
ALTERNATIVES = ("residual.rank", "scale")
# Of so many specialists a merge is faster with memory from the heaps, which grow a little with each.
FEW = 8


class Quoting(click.Command):
    """A command that tells of quotes where a shell has put files in place of a pattern."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "extra argument" in error.message:
                hint = "put a pattern in quotes: --specialist 'models/*.safetensors'"
                raise click.UsageError(f"{error.message}; {hint}", error.ctx) from error
            raise


@click.command(cls=Quoting)
@click.option("--recipe", type=_PATH, help="YAML file that says the same; options given here win over it.")
@click.option("--method", help="Merging method; `r2m methods` lists them.")
@click.option("--base", type=_PATH, help="Weights that all specialists were fine-tuned from.")
@found_files(
    "--specialist",
    metavar="[NAME=]FILE",
    help="A fine-tuned model; once for each. Or, without NAME, a quoted pattern or a folder of several.",
)
@click.option("--out", type=_PATH, help="Merged weights to write (.safetensors).")
@click.option("--report", type=_PATH, help="JSON report to write  [default: OUT with the suffix .json]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the method.")
@named_numbers("--weight", help="Relative weight of a specialist  [default: 1].")
@click.option("--head", metavar="RULE", help="average, base or specialist:NAME.")
@click.option("--head-prefix", metavar="PREFIX", help="Tensors that are the head, merged by --head.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Tensors that stay as in the base.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="[default: the base's]")
@click.option(
    "--shard-size", metavar="SIZE", help="Write shards of at most so much, such as 2GB, and an index."
)
@named_files("--statistics", help="Statistics of a specialist (fisher, regmean, esm).")
@click.option("--gram-cache", type=_PATH, help="Keep inner products of task vectors in this file (r2m).")
@click.option(
    "--resample-positions", is_flag=True, help="Bring position embeddings of a CLIP to the base's size."
)
@click.option("--out-lora", type=_PATH, metavar="FOLDER", help="Write a LoRA adapter of the update as well.")
@click.option("--lora-rank", type=click.IntRange(min=1), help="Rank of --out-lora  [default: 16]")
@click.option("--force", is_flag=True, help="Replace outputs that exist.")
@click.option("--allow-nonfinite", is_flag=True, help="Average tensors with NaN or infinite values.")
@click.option("--allow-other-base", is_flag=True, help="Merge specialists whose metadata name another base.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option("--threads", type=click.IntRange(min=1), help="[default: the cores that there are]")
def command(
    recipe: Path | None,
    specialist: dict[str, Path] | list[Any],
    statistics: dict[str, Path],
    weight: dict[str, float],
    settings: tuple[str, ...],
    exclude: tuple[str, ...],
    resample_positions: bool,
    force: bool,
    allow_nonfinite: bool,
    allow_other_base: bool,
    device: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Merge specialists of one base into one model, tensor by tensor, in little memory.

    \b
    r2m merge --method ties --base clip.safetensors --specialist swap=a.safetensors \\
        --specialist lip=b.safetensors --set keep=0.3 --out merged.safetensors
    """
    from r2m.merge import recipe as recipes
    from r2m.merge.specialist_files import with_names

    content = {key: value for key, value in given.items() if value is not None}
    content |= {"specialists": specialist} if specialist else {}
    content |= {"statistics": statistics} if statistics else {}
    content |= {"weights": weight} if weight else {}
    content |= {"exclude": list(exclude)} if exclude else {}
    content |= {"options": _options(settings)} if settings else {}
    content |= {"resample_positions": True} if resample_positions else {}
    said = content if recipe is None else recipes.read(recipe, **content)
    folder = Path() if recipe is None or specialist else recipe.parent
    source = "r2m merge" if recipe is None else f"{recipe}"
    asked = recipes.build(with_names(said, folder), source, recipe)
    asked.resolved()
    asked.resolved_rules()
    if len(asked.specialists) > FEW:
        map_large_blocks()

    import torch

    from r2m.merge.engine import Settings, merge_files
    from r2m.models.precision import resolve_device

    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    how = Settings(
        threads=threads or cores,
        device=resolve_device(device, "--device"),
        force=force,
        allow_nonfinite=allow_nonfinite,
        allow_other_base=allow_other_base,
        progress=Bar(len(asked.specialists) + 1),
    )
    report = merge_files(asked, how)
    with suppress(OSError):  # the outputs are there, whoever hears of them
        click.echo(
            f"{report['out']}: {report['title']} of {len(report['inputs'])}; report in {asked.report_path}"
        )
        if "lora" in report:
            click.echo(_of_adapter(report["lora"]))


def _of_adapter(lora: Mapping[str, Any]) -> str:
    """Return one line on how near an adapter is to the update."""
    return (
        f"{lora['folder']}: rank {lora['rank']}, relative error {lora['relative_error_of_matrices']:.2g} of"
        f" {len(lora['tensors'])} matrices; left out: {len(lora['left_out'])} other tensors with"
        f" {lora['share_left_out']:.2g} of the update's norm; relative error in all"
        f" {lora['relative_error']:.2g}"
    )


def _options(settings: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in map(_setting, settings):
        if key in options:
            raise R2MError(f"--set {key}: is given twice")
        group = key.rpartition(".")[0]
        rivals = [other for other in options if group in ALTERNATIVES and other.startswith(f"{group}.")]
        if rivals:
            raise R2MError(f"--set {key}: contradicts {rivals[0]}; expected one of them")
        options[key] = value
    return options


def _setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise R2MError(f"--set {text}: expected KEY=VALUE")
    return key, parse_yaml(value, f"--set {text}")
