"""`r2m faces`: find, align and encode the faces of one domain of real photographs."""

from pathlib import Path

import click

from r2m.cli.json_type import Options
from r2m.data.faces import Settings, build_domain
from r2m.data.options import FacesOptions

FILE = click.Path(path_type=Path)


@click.command()
@click.option("--domain", required=True, help="Name of the image set.")
@click.option("--images", type=FILE, required=True, help="Folder of photographs.")
@click.option("--role", type=click.Choice(["train", "test"]), required=True)
@click.option("--identity", type=click.Choice(["cluster", "folder", "file"]), required=True)
@click.option("--limit", type=click.IntRange(min=1), help="About so many images, evenly over identities.")
@click.option("--frames/--no-frames", default=None, help="Sub-folders are videos, or are not; else by names.")
@click.option("--options", type=Options(FacesOptions), required=True, help="The section `faces` as JSON.")
@click.option("--image-size", type=click.IntRange(min=16), required=True, help="Side of the encoded images.")
@click.option("--seed", type=int, required=True)
@click.option("--detector", type=FILE, help="YuNet as ONNX; without it the images are aligned crops already.")
@click.option("--embedder", type=FILE, help="SFace as ONNX.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--out", type=FILE, required=True, help="Folder, written complete or not at all.")
def command(
    domain: str,
    images: Path,
    role: str,
    identity: str,
    limit: int | None,
    frames: bool | None,
    options: FacesOptions,
    image_size: int,
    seed: int,
    detector: Path | None,
    embedder: Path | None,
    threads: int,
    out: Path,
) -> None:
    """Detect, align, group by identity, split and encode the real photographs of one domain."""
    settings = Settings(options, image_size, seed, detector, embedder, threads)
    build_domain(domain, images, role, identity, limit, settings, out, frames)
