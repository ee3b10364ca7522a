"""`r2m robustness`: scores of perturbed test images."""

from pathlib import Path

import click

from r2m.cli.compute import FILE, compute_options, image_options
from r2m.cli.json_type import Options
from r2m.cli.named_file import named_files
from r2m.experiments.options import RobustnessOptions
from r2m.models.options import BackboneOptions


@click.command()
@image_options
@named_files("--model", required=True, help="A head, or a model whose tensors are laid over the base.")
@click.option("--domain", required=True, help="The training domain.")
@click.option("--generator", "generators", multiple=True, required=True, help="Generators of the fakes.")
@click.option(
    "--options", type=Options(RobustnessOptions), required=True, help="experiments.robustness as JSON."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64)
@click.option("--seed", default=0)
@click.option("--out", type=FILE, required=True, help="Scores to write (Parquet).")
@compute_options
def command(
    manifests: tuple[Path, ...],
    base: Path,
    backbone: BackboneOptions,
    model: dict[str, Path],
    domain: str,
    generators: tuple[str, ...],
    options: RobustnessOptions,
    batch_size: int,
    seed: int,
    out: Path,
    device: str,
    precision: str,
    threads: int,
) -> None:
    """Score the training domain's test images with several models, as they are and at every level."""
    import torch

    from r2m import manifest
    from r2m.evaluate.scores import write
    from r2m.experiments.robustness import perturbed_rows, robustness_scores
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector
    from r2m.models.precision import resolve_device

    torch.set_num_threads(threads)
    detector = Detector(backbone)
    detector.load_tensors(checkpoint.load(base)[0], f"{base}: tensors", complete=True)
    models = {name: checkpoint.load(path)[0] for name, path in model.items()}
    frames = [manifest.read(path).assign(set=path.parent.name) for path in manifests]
    rows = perturbed_rows(frames, domain, generators, options.people, seed)
    place = resolve_device(device)
    scores = robustness_scores(
        detector.to(place), models, rows, options.levels, backbone, place, precision, batch_size, seed
    )
    write(scores, {"experiment": "robustness", "models": ",".join(models)}, out)
