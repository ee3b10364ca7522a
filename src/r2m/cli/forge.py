"""`r2m forge`: make or import the fakes of one generator."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.data.faces import Settings
from r2m.data.options import FacesOptions
from r2m.forge.generate import build_generator
from r2m.forge.options import GeneratorOptions

FILE = click.Path(path_type=Path)


@click.command()
@click.option("--generator", required=True, help="Name of the image set.")
@click.option("--options", type=Options(GeneratorOptions), required=True, help="generators.NAME as JSON.")
@click.option(
    "--faces-options", type=Options(FacesOptions), required=True, help="The section `faces` as JSON."
)
@click.option("--image-size", type=click.IntRange(min=16), required=True, help="Side of the encoded images.")
@click.option("--seed", type=int, required=True)
@click.option(
    "--faces", type=FILE, required=True, multiple=True, help="Folder of a domain; repeat the option."
)
@click.option(
    "--trained",
    type=FILE,
    multiple=True,
    help="Manifest of a folder of fakes that is trained on, for one that is not; repeat the option.",
)
@click.option("--detector", type=FILE, help="YuNet as ONNX, for a folder of fakes.")
@click.option("--embedder", type=FILE, help="SFace as ONNX, for a folder of fakes.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--out", type=FILE, required=True, help="Folder, written complete or not at all.")
def command(
    generator: str,
    options: GeneratorOptions,
    faces_options: FacesOptions,
    image_size: int,
    seed: int,
    faces: tuple[Path, ...],
    trained: tuple[Path, ...],
    detector: Path | None,
    embedder: Path | None,
    threads: int,
    out: Path,
) -> None:
    """Forge the reals of all domains, or align and encode a folder of fakes."""
    settings = Settings(faces_options, image_size, seed, detector, embedder, threads)
    build_generator(generator, options, faces, settings, out, trained)
