"""CLIP ViT-L/14 from training to a merged detector, on a CPU: a rehearsal of what DF40 asks for.

    python benchmarks/large.py --cache FOLDER --threads 2

Two specialists are trained for one step at 224 px, all blocks, on JPEGs of smooth noise from weights of
noise; their task vectors are taken, merged by R²M, and the merged detector scores an image. Every row is a
process of its own. About 14 GB of files and 10 GB of memory.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from training import LARGE, backbone, write_images

import r2m
from r2m.data.options import FacesOptions
from r2m.merge import stages as merging
from r2m.models import checkpoint
from r2m.models import stages as models
from r2m.models.backbone import create_backbone
from r2m.session_files import Compute, SessionFiles
from r2m.train import stages as training
from r2m.train.options import FinetuneOptions
from r2m.trunk.options import AugmentOptions

OPTIONS = backbone(LARGE, 224)
SPECIALISTS = ("first", "second")
PAIRS = 2


def start(folder: Path, threads: int) -> None:
    """Draw weights and make the base and its head of them."""
    torch.manual_seed(0)
    checkpoint.save(folder / "weights.safetensors", create_backbone(OPTIONS).state_dict(), {})
    models.base(
        weights=folder / "weights.safetensors",
        backbone=OPTIONS,
        faces=FacesOptions(),
        precision="auto",
        seed=0,
        base=folder / "base.safetensors",
        head=folder / "head.safetensors",
    )


def train(name: str, folder: Path, threads: int) -> None:
    """Train a specialist for one step."""
    training.finetune(
        files=SessionFiles((write_images(folder, PAIRS + 4),), (), folder / "base.safetensors"),
        initial_head=folder / "head.safetensors",
        name=name,
        generators=["fake"],
        options=FinetuneOptions(steps=1, pairs=PAIRS, lr=1e-5),
        augment=AugmentOptions(),
        objective="binary",
        seed=0,
        compute=Compute(OPTIONS, "cpu"),
        state=folder / f"{name}.state",
        model=folder / f"{name}.safetensors",
        history=folder / f"{name}.csv",
        threads=threads,
    )


def subtract(name: str, folder: Path, threads: int) -> None:
    """Take a specialist's task vector."""
    merging.task_vector(
        base=folder / "base.safetensors",
        specialist=folder / f"{name}.safetensors",
        task_vector=folder / f"{name}.vector.safetensors",
        head=folder / f"{name}.head.safetensors",
    )


def merge(folder: Path, threads: int) -> None:
    """Merge the specialists by R²M, their heads averaged."""
    given = [part for name in SPECIALISTS for part in ("--specialist", f"{name}={folder}/{name}.safetensors")]
    command = ["r2m", "merge", "--method", "r2m", "--base", f"{folder}/base.safetensors", *given]
    command += ["--head-prefix", "head.", "--head", "average", "--out", f"{folder}/merged.safetensors"]
    subprocess.run([sys.executable, "-m", *command, "--threads", str(threads)], check=True, stdout=sys.stderr)


def score(folder: Path, threads: int) -> None:
    """Load the merged detector and score an image."""
    torch.set_num_threads(threads)
    detector = r2m.load(folder / "merged.safetensors", device="cpu")
    assert 0 <= float(detector.probabilities(next(folder.glob("*.jpg")))) <= 1


ROWS: dict[str, Callable[[Path, int], None]] = {
    "base": start,
    **{f"finetune {name}": lambda *given, name=name: train(name, *given) for name in SPECIALISTS},
    **{f"task_vector {name}": lambda *given, name=name: subtract(name, *given) for name in SPECIALISTS},
    "merge": merge,
    "load and score": score,
}


def main() -> None:
    """Run every row in a process of its own and print its time and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        arguments.cache.mkdir(parents=True, exist_ok=True)
        ROWS[arguments.row](arguments.cache, arguments.threads)
        peaks = [
            resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        print(f"{max(peaks) / 1024:.0f}")
        return
    print("| step | seconds | memory, MB |\n|---|--:|--:|")
    for row in ROWS:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--row", row], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{row}: {done.stderr}")
        seconds = time.perf_counter() - started
        print(f"| `{row}` | {seconds:.0f} | {done.stdout.splitlines()[-1]} |", flush=True)


if __name__ == "__main__":
    main()
