"""Tuning methods on the images of a finished run: AUCs at home and merged, time, size of what is trained.

    python benchmarks/tuning.py RUN
    python benchmarks/tuning.py RUN --rows '{tuning: full}' '{tuning: {method: lora, rank: 4}, lr: 1.0e-3}'

RUN is the folder of params.yaml and results/, of which manifests, cached activations, the base and its head
are read. A row is what one generator's `finetune` may say in params.yaml. It is one training of all
specialists, from the same base and head, and their merges by R²M and weight averaging with default options,
whose val AUCs are means over generators. Nothing is written into RUN.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2m.evaluate.bench import Bench, open_bench
from r2m.merge import registry
from r2m.merge import stages as merging
from r2m.models import checkpoint
from r2m.options import parse_yaml
from r2m.params import load
from r2m.plan.plan import BASE, INITIAL_HEAD, Plan
from r2m.session_files import MergeParts
from r2m.train import stages as training
from r2m.train.options import FinetuneOptions, FinetuneOverrides
from r2m.train.rows import rows_of
from r2m.train.tuning.tuned import tuned
from r2m.train.validation import aucs

# Few parameters take greater steps.
ROWS = (
    "{tuning: full}",
    "{tuning: norms, lr: 3.0e-4}",
    "{tuning: {method: lora}, lr: 3.0e-4}",
    "{tuning: {method: effort}, lr: 3.0e-4}",
)
MERGES = {"r2m": "R²M", "weight_averaging": "weight averaging"}


@dataclass(frozen=True)
class Specialists:
    """Trained specialists: their files, their val AUCs on what they are trained on, and seconds."""

    parts: MergeParts
    home: list[float]
    seconds: list[float]


def train(plan: Plan, row: FinetuneOverrides, folder: Path, seed: int, threads: int) -> Specialists:
    """Train all specialists of a run as `row` says, into `folder`."""
    vectors, heads, home, seconds = {}, {}, [], []
    for name, generators in plan.members.items():
        model, vectors[name], heads[name] = (
            folder / f"{name}.{part}" for part in ("model", "vector", "head")
        )
        start = time.process_time()
        training.finetune(
            files=plan.files(plan.training_sets(generators)),
            initial_head=INITIAL_HEAD,
            name=name,
            generators=generators,
            options=row.applied(plan.params.finetune_options(name)),
            augment=plan.params.augment,
            objective="binary",
            seed=seed,
            compute=plan.compute,
            state=folder / "state",
            model=model,
            history=folder / "history.csv",
            threads=threads,
        )
        seconds.append(time.process_time() - start)
        merging.task_vector(base=BASE, specialist=model, task_vector=vectors[name], head=heads[name])
        home.append(json.loads(checkpoint.read_metadata(model)["selected"])["val_auc"])
    return Specialists(MergeParts(vectors, heads, INITIAL_HEAD), home, seconds)


def merged_auc(bench: Bench, method: str, generators: Sequence[str]) -> float:
    """Return the mean val AUC of a merge of all specialists with default options."""
    tensors = bench.merged(registry.get(method), registry.get(method).options())
    bench.detector.load_tensors({**tensors, **bench.head()})
    fakes, reals = rows_of(bench.inputs, generators, "val")
    found = aucs(fakes, bench.predict(fakes), reals, bench.predict(reals))
    return float(np.mean(list(found.values())))


def trained_bytes(bench: Bench, options: FinetuneOptions) -> int:
    """Return the size of the parameters that the optimizer gets."""
    with tuned(bench.detector, options.tuning, 0):
        trained = [one for one in bench.detector.parameters() if one.requires_grad]
    return sum(one.numel() * one.element_size() for one in trained)


def main() -> None:
    """Print one line a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", nargs="+", default=ROWS, help="YAML mappings  [default: all four methods]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    rows = {text: FinetuneOverrides.model_validate(parse_yaml(text, "--rows")) for text in options.rows}
    os.chdir(options.run)
    plan = Plan(load("params.yaml"))
    print(f"{len(plan.members)} specialists; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    merges = " | ".join(f"{label}, AUC (val)" for label in MERGES.values())
    print(f"| finetune | home AUC (val) | {merges} | a specialist (CPU s) | trained (MB) |")
    print(f"|---|--:|{'--:|' * len(MERGES)}--:|--:|")
    for text, row in rows.items():
        with tempfile.TemporaryDirectory(prefix="r2m-tuning-") as folder:
            trained = train(plan, row, Path(folder), options.seed, options.threads)
            files = plan.files(plan.training_sets(plan.trained))
            bench = open_bench(files, plan.compute, trained.parts, options.threads)
            cells = [np.mean(trained.home), *(merged_auc(bench, method, plan.trained) for method in MERGES)]
            size = trained_bytes(bench, row.applied(plan.params.finetune)) / 1e6
            aucs = " | ".join(f"{auc:.4f}" for auc in cells)
            print(f"| `{text}` | {aucs} | {np.mean(trained.seconds):.0f} | {size:.3g} |", flush=True)


if __name__ == "__main__":
    main()
