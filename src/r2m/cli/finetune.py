"""`r2m finetune`: one specialist, or the joint detector."""

import csv
import hashlib
import json
from pathlib import Path

import click

from r2m.cli.compute import FILE, compute_options, inputs_options
from r2m.cli.json_type import Options
from r2m.models.options import BackboneOptions
from r2m.train.options import FinetuneOptions
from r2m.trunk.options import AugmentOptions


@click.command()
@inputs_options
@click.option("--name", required=True, help="Name of the specialist.")
@click.option("--generator", "generators", multiple=True, required=True, help="Generators to train on.")
@click.option("--options", type=Options(FinetuneOptions), required=True)
@click.option("--initial-head", type=FILE, required=True, help="Where every specialist's head starts.")
@click.option("--augment", type=Options(AugmentOptions), required=True)
@click.option(
    "--objective",
    type=click.Choice(["binary", "multiclass"]),
    default="binary",
    show_default=True,
    help="multiclass: Real and each generator are classes, and the head starts from the seed.",
)
@click.option("--seed", default=0)
@click.option("--state", type=FILE, required=True, help="Where to resume from; removed at the end.")
@click.option("--history", type=FILE, required=True)
@click.option("--out", type=FILE, required=True)
@compute_options
def command(
    manifests: tuple[Path, ...],
    trunks: tuple[Path, ...],
    base: Path,
    backbone: BackboneOptions,
    name: str,
    generators: tuple[str, ...],
    options: FinetuneOptions,
    initial_head: Path,
    augment: AugmentOptions,
    objective: str,
    seed: int,
    state: Path,
    history: Path,
    out: Path,
    device: str,
    precision: str,
    threads: int,
) -> None:
    """Fine-tune the detector from the base on the fakes of some generators."""
    import torch

    from r2m.digest import code_digest
    from r2m.files import atomic_path
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector
    from r2m.models.backbone import initial_head as drawn_head
    from r2m.models.precision import resolve_device
    from r2m.train.finetune import finetune
    from r2m.trunk.inputs import Inputs, images_digest

    torch.set_num_threads(threads)
    base_hash = checkpoint.read_metadata(base).get("base_hash")
    inputs = Inputs(manifests, trunks, backbone, base_hash)
    detector = Detector(backbone)
    if objective == "binary":
        head = checkpoint.load(initial_head)[0]
    else:
        head = drawn_head(detector.head.in_features, seed, 1 + len(generators))
    detector.load_tensors(checkpoint.load(base)[0], f"{base}: tensors", complete=True)
    detector.load_tensors(head, f"{initial_head}: tensors")
    provenance = {
        "content": "specialist",
        "name": name,
        "generators": list(generators),
        "objective": objective,
        "base_hash": base_hash,
        "backbone": backbone.model_dump(),
        "options": options.model_dump(),
        "augment": None if trunks else augment.model_dump(),
        "seed": seed,
        "precision": precision,
        "images": images_digest(inputs.rows),
        "code": code_digest(["r2m.cli.finetune"]),
    }
    progress = finetune(
        detector,
        inputs,
        list(generators),
        options,
        None if trunks else augment,
        name=name,
        seed=seed,
        device=resolve_device(device),
        precision=precision,
        state_path=state,
        fingerprint=hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest(),
    )
    with atomic_path(history) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "loss", "val_auc"])
        writer.writeheader()
        writer.writerows(progress.history)
    selected = {"step": progress.best_step, "val_auc": progress.best_auc}
    checkpoint.save(out, progress.best, {**provenance, "selected": selected})
    state.unlink(missing_ok=True)
