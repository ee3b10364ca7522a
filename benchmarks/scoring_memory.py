"""Peak memory of what reads images, by their number: it must not grow with them beyond the manifest's rows.

    python benchmarks/scoring_memory.py --cache FOLDER --images 10000 100000

A small ViT at 32 px. The images are hard links to a few files, so that the disk stays small. Each stage is a
process of its own; its peak is measured as those of the other benchmarks are.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from measure import measure

if TYPE_CHECKING:  # the process that measures has to stay small
    from r2m.models.options import BackboneOptions

SIZE = 32
# A file system allows some ten thousand links to one file.
FILES = 64
TILE = 1000


def prepare(folder: Path, count: int) -> None:
    """Write images, their manifest, and a base with its head; reals and fakes in turn, in all splits."""
    import cv2
    import numpy as np
    import pandas as pd
    import torch

    from r2m import manifest
    from r2m.data.options import FacesOptions
    from r2m.models import checkpoint
    from r2m.models.backbone import Detector, create_backbone
    from r2m.models.config import KEY, config_of
    from r2m.models.heads import initial_head

    drawn = np.random.default_rng(0).integers(0, 256, (FILES, SIZE, SIZE, 3)).astype(np.uint8)
    paths = [folder / "images" / f"{i // TILE:04}" / f"{i:07}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < FILES:
            cv2.imwrite(str(path), drawn[i])
        else:
            os.link(paths[i % FILES], path)
    number = np.arange(count)
    label = number % 2
    split = np.select([number // 2 % 10 == 0, number // 2 % 10 == 1], ["train", "val"], "test")
    frame = pd.DataFrame(
        {
            "image_id": [f"set/{i // TILE:04}/{i:07}" for i in range(count)],
            "path": [path.as_posix() for path in paths],
            "label": label,
            "generator": np.where(label, "swap", "real"),
            "family": np.where(label, "FS", "real"),
            "domain": "photographs",
            "identity": [f"{i // 2:06}" for i in range(count)],
            "source_image": [f"set/{i // TILE:04}/{i - 1:07}" if i % 2 else None for i in range(count)],
            "video": [f"{i // 32:05}" for i in range(count)],
            "split": split,
            "digest": [f"{i:064x}" for i in range(count)],
        }
    )
    manifest.write(frame, folder / "set" / "manifest.parquet")
    torch.manual_seed(0)
    options = backbone("all")
    weights = create_backbone(options).state_dict()
    config = config_of(options, FacesOptions(), "fp32").model_dump(mode="json")
    metadata = {"base_hash": checkpoint.digest(weights), KEY: config}
    head = initial_head(Detector(options).width, 0)
    checkpoint.save(folder / "base.safetensors", weights, metadata)
    checkpoint.save(folder / "head.safetensors", head, metadata)
    checkpoint.save(folder / "model.safetensors", weights | head, metadata)


def backbone(trainable: int | Literal["all"]) -> BackboneOptions:
    """Return the options of the small ViT with so many trainable blocks."""
    from r2m.models.options import BackboneOptions
    from r2m.options import FileSource

    weights = FileSource(file="weights.safetensors")
    return BackboneOptions(name="test_vit", image_size=SIZE, weights=weights, trainable_blocks=trainable)


def trunk(folder: Path) -> None:
    """Cache the activations of the frozen blocks."""
    from r2m.trunk.stages import trunk as run

    run(
        manifest=folder / "set" / "manifest.parquet",
        base=folder / "base.safetensors",
        backbone=backbone(2),
        device="cpu",
        precision="fp32",
        activations=folder / "activations.safetensors",
    )


def score(folder: Path, trunks: bool) -> None:
    """Score val and test images from activations, or from crops."""
    from r2m.evaluate.stages import score as run
    from r2m.session_files import Compute, SessionFiles

    activations = (folder / "activations.safetensors",) if trunks else ()
    run(
        files=SessionFiles((folder / "set" / "manifest.parquet",), activations, folder / "base.safetensors"),
        model=folder / "head.safetensors",
        kind="base",
        name="base",
        label="Base",
        method=None,
        seed=None,
        batch_size=64,
        compute=Compute(backbone(2 if trunks else "all"), "cpu", "fp32"),
        scores=folder / "scores.parquet",
    )


def finetune(folder: Path) -> None:
    """Train for a few steps on crops, with augmentation."""
    from r2m.session_files import Compute, SessionFiles
    from r2m.train.options import FinetuneOptions
    from r2m.train.stages import finetune as run
    from r2m.trunk.options import AugmentOptions

    run(
        files=SessionFiles((folder / "set" / "manifest.parquet",), (), folder / "base.safetensors"),
        initial_head=folder / "head.safetensors",
        name="swap",
        generators=["swap"],
        options=FinetuneOptions(steps=20, validate_every=20, checkpoint_every=20),
        augment=AugmentOptions(),
        objective="binary",
        seed=0,
        compute=Compute(backbone("all"), "cpu", "fp32"),
        state=folder / "state.safetensors",
        model=folder / "specialist.safetensors",
        history=folder / "history.csv",
    )


def folder_of_files(folder: Path) -> None:
    """Score a folder as `r2m score` does."""
    import torch

    from r2m.models.image_detector import load, score

    torch.set_num_threads(1)
    detector = load(folder / "model.safetensors", device="cpu")
    score(folder / "images", detector).to_csv(folder / "scores.csv", index=False)


STAGES: dict[str, Callable[[Path], None]] = {
    "trunk": trunk,
    "score, activations": lambda folder: score(folder, trunks=True),
    "score, crops": lambda folder: score(folder, trunks=False),
    "finetune, crops": finetune,
    "r2m score FOLDER": folder_of_files,
}


def compare(cache: Path, counts: list[int]) -> None:
    """Measure every stage with every number of images and print a table."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    peaks: dict[str, list[int]] = {name: [] for name in STAGES}
    for count in counts:
        folder = cache / str(count)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for stage in ("prepare", *STAGES):
            log = cache / f"{stage}.log"
            command = [
                sys.executable,
                __file__,
                "--cache",
                str(folder),
                "--images",
                str(count),
                "--stage",
                stage,
            ]
            measured = measure(command, log, environment)
            if measured.status:
                sys.exit(f"{stage}, {count} images: exit status {measured.status}\n{log.read_text()[-2000:]}")
            print(f"{stage}, {count} images: {measured.wall:.1f} s, {measured.rss / 1e6:.0f} MB", flush=True)
            if stage in peaks:
                peaks[stage].append(measured.rss)
        shutil.rmtree(folder)
    print("\n| peak (MB) |" + "".join(f" {count:,} images |" for count in counts) + " growth |")
    print("|---|" + "--:|" * (len(counts) + 1))
    for stage, values in peaks.items():
        cells = "".join(f" {value / 1e6:.0f} |" for value in values)
        print(f"| {stage} |{cells} {values[-1] / values[0] - 1:+.1%} |")


def main() -> None:
    """Parse the command line; `--stage` is how this program starts what it measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000], metavar="N")
    parser.add_argument("--stage", choices=["prepare", *STAGES], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    if arguments.stage == "prepare":
        prepare(cache, arguments.images[0])
    elif arguments.stage:
        STAGES[arguments.stage](cache)
    else:
        compare(cache, arguments.images)


if __name__ == "__main__":
    main()
