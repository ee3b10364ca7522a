"""`r2m hostile-data`: what an uneven or hostile specialist is trained on."""

from pathlib import Path

import click

from r2m.cli.compute import FILE
from r2m.cli.json_type import Options
from r2m.experiments.options import HostileOptions


@click.command()
@click.option("--kind", type=click.Choice(["undertrained", "flipped", "backdoor"]), required=True)
@click.option("--manifest", "manifests", type=FILE, multiple=True, required=True)
@click.option("--generator", "generators", multiple=True, required=True, help="The specialist's generators.")
@click.option("--options", type=Options(HostileOptions), required=True, help="experiments.hostile as JSON.")
@click.option("--seed", default=0)
@click.option("--out", type=FILE, required=True, help="Manifest to write; new images go beside it.")
def command(
    kind: str,
    manifests: tuple[Path, ...],
    generators: tuple[str, ...],
    options: HostileOptions,
    seed: int,
    out: Path,
) -> None:
    """Write a manifest with a tenth of the people, with exchanged labels, or with a backdoor."""
    from r2m.experiments.hostile_data import write_data

    write_data(kind, manifests, generators, options, seed, out)
