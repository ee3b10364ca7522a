"""How many images a second are trained on and scored, by backbone and by what is trained.

    python benchmarks/training.py --cache FOLDER --threads 2
    python benchmarks/training.py --cache FOLDER --device cuda --setting large --pairs 16 --workers 8

On JPEGs of smooth noise with weights of noise: speed depends on neither. Every row is a process of its own,
and so is its memory; on a GPU that is what torch has allocated at most.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from r2m import manifest
from r2m.models import checkpoint
from r2m.models.backbone import create_backbone
from r2m.models.heads import initial_head
from r2m.models.options import BackboneOptions
from r2m.options import FileSource
from r2m.session import open_session
from r2m.session_files import Compute, SessionFiles
from r2m.train.finetune import finetune
from r2m.train.options import FinetuneOptions
from r2m.trunk.options import AugmentOptions
from r2m.trunk.stages import trunk

SIZE, FILES = 256, 128
NO_WEIGHTS = FileSource(file="weights.safetensors")


def backbone(name: str, size: int, blocks: Any = "all", trainable: Any = "all") -> BackboneOptions:
    """Return the options of a backbone whose weights are drawn here."""
    return BackboneOptions(
        name=name, image_size=size, weights=NO_WEIGHTS, blocks=blocks, trainable_blocks=trainable
    )


BASE, LARGE = "vit_base_patch16_clip_quickgelu_224", "vit_large_patch14_clip_quickgelu_224"
SETTINGS = {
    "default": ("ViT-B/16, 112 px, blocks 7 and 8 of 8", backbone(BASE, 112, 8, 2)),
    "base": ("ViT-B/16, 224 px", backbone(BASE, 224)),
    "large": ("ViT-L/14, 224 px", backbone(LARGE, 224)),
}
# What is measured → options of `finetune`; None: scoring, which trains nothing.
WHAT: dict[str, dict[str, Any] | None] = {
    "scored": None,
    "trained, everything": {},
    "trained, with gradient checkpointing": {"gradient_checkpointing": True},
    "trained, LayerNorms": {"tuning": {"method": "norms"}},
    "trained, LoRA of rank 8": {"tuning": {"method": "lora"}},
    "trained, Effort": {"tuning": {"method": "effort"}},
}


def write_images(folder: Path, count: int) -> Path:
    """Write the manifest of `count` reals and as many fakes, of at most `FILES` different JPEGs."""
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(FILES)]
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        small = random.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        image = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    numbers, labels = np.arange(2 * count) // 2, np.arange(2 * count) % 2
    frame = pd.DataFrame(
        {
            "image_id": [f"{label}/{number:06}" for number, label in zip(numbers, labels, strict=True)],
            "path": [paths[place % FILES].as_posix() for place in range(2 * count)],
            "label": labels,
            "generator": np.where(labels, "fake", "real"),
            "family": np.where(labels, "FS", "real"),
            "domain": "photographs",
            "identity": numbers.astype(str),
            "source_image": [
                f"0/{number:06}" if label else None for number, label in zip(numbers, labels, strict=True)
            ],
            "video": None,
            "split": np.where(numbers < 4, "val", "train"),
        }
    )
    path = folder / f"{count}" / "manifest.parquet"
    manifest.write(frame, path)
    return path


def measured(setting: str, what: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure one row: images a second of wall time and of CPU time, and the greatest memory in MB."""
    _, options = SETTINGS[setting]
    device = torch.device(arguments.device)
    count = arguments.pairs * arguments.steps + 4
    path = write_images(arguments.cache, count)
    base = arguments.cache / f"{setting}.safetensors"
    if not base.exists():
        torch.manual_seed(0)
        weights = create_backbone(options).state_dict()
        checkpoint.save(base, weights, {"base_hash": checkpoint.digest(weights)})
    compute = Compute(options, arguments.device)
    trunks: tuple[Path, ...] = ()
    if options.trainable_blocks != "all":
        trunks = (path.with_name("trunk.safetensors"),)
        shared = {"backbone": options, "device": arguments.device, "precision": "auto"}
        trunk(manifest=path, base=base, activations=trunks[0], threads=arguments.threads, **shared)
    session = open_session(SessionFiles((path,), trunks, base), compute, arguments.threads)
    session.detector.load_tensors(initial_head(session.detector.width, 0, 1))
    changed = WHAT[what]
    if changed is None:
        rows = session.inputs.rows

        def run() -> None:
            session.predict(rows, 2 * arguments.pairs)
    else:
        training = FinetuneOptions.model_validate(
            {
                "steps": arguments.steps,
                "pairs": arguments.pairs,
                "validate_every": 10**6,
                "checkpoint_every": 10**6,
                "workers": arguments.workers,
                **changed,
            }
        )
        rows = session.inputs.rows.iloc[: 2 * arguments.pairs * arguments.steps]
        augment = None if trunks else AugmentOptions()
        state = path.with_name("state.safetensors")

        def run() -> None:
            finetune(
                session, ["fake"], training, augment, name="x", seed=0, state_path=state, fingerprint="x"
            )

    started, cpu = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"rate": len(rows) / seconds, "cpu_rate": len(rows) / cpu, "peak": peak}


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", default="cpu", metavar="NAME")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images")
    parser.add_argument("--pairs", type=int, default=16, metavar="N", help="real/fake pairs in a batch")
    parser.add_argument("--steps", type=int, default=10, metavar="N")
    parser.add_argument("--setting", choices=SETTINGS, nargs="+", default=list(SETTINGS))
    parser.add_argument("--what", choices=WHAT, nargs="+", default=list(WHAT))
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measured(arguments.setting[0], arguments.what[0], arguments)))
        return
    print("| backbone | images | images/s | images per CPU second | memory, MB |\n|---|---|--:|--:|--:|")
    for setting in arguments.setting:
        for what in arguments.what:
            shared = ("device", "threads", "workers", "pairs", "steps")
            passed = [part for key in shared for part in (f"--{key}", str(getattr(arguments, key)))]
            command = [sys.executable, __file__, "--row", "--cache", str(arguments.cache.resolve()), *passed]
            done = subprocess.run(
                [*command, "--setting", setting, "--what", what], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{setting}, {what}: {done.stderr}")
            row = json.loads(done.stdout.splitlines()[-1])
            numbers = f"{row['rate']:.1f} | {row['cpu_rate']:.1f} | {row['peak']:.0f}"
            print(f"| {SETTINGS[setting][0]} | {what} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
