"""A detector as ONNX beside torch: how far its logits are, its AUC on val, its size and its speed.

    python benchmarks/exporting.py RUN

RUN is the folder of params.yaml and results/ of a finished run. The merge that the model card is of is scored
on the val images of all trained generators and their reals, in fp32 by torch, as ONNX and as ONNX with 8-bit
matrices. Nothing is written into RUN.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import r2m
from r2m import manifest
from r2m.data.images import read_square
from r2m.detection.export import export_onnx, logits_of
from r2m.params import load
from r2m.plan.plan import Plan
from r2m.train.validation import aucs


def val_images(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the fakes of trained generators and the reals of the training domain in the val split."""
    rows = manifest.concat(
        manifest.read(path) for path in map(plan.manifest, plan.training_sets(plan.trained))
    )
    val = rows[rows["split"] == "val"].reset_index(drop=True)
    return tuple(val[val["label"] == label].reset_index(drop=True) for label in (1, 0))


def main() -> None:
    """Print one line a format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.chdir(options.run)
    plan = Plan(load("params.yaml"))
    model = plan.model("merge", plan.reference, plan.seeds[0])
    detector = r2m.load(model, device="cpu", precision="fp32")
    fakes, reals = val_images(plan)
    size = detector.config.image_size
    images = np.stack([read_square(Path(path), size)[..., ::-1] for path in [*fakes["path"], *reals["path"]]])
    given = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / 255
    with tempfile.TemporaryDirectory(prefix="r2m-exporting-") as folder:
        whole, small = (Path(folder) / name for name in ("whole.onnx", "small.onnx"))
        export_onnx(detector, whole)
        export_onnx(detector, small, int8=True)
        contenders: dict[str, tuple[Path, Callable[[], NDArray[np.float32]]]] = {
            "torch, fp32": (model, lambda: detector.logits(images)),
            "ONNX Runtime, fp32": (whole, lambda: logits_of(whole, given)),
            "ONNX Runtime, int8": (small, lambda: logits_of(small, given)),
        }
        print(f"{len(images)} images of val on {options.threads} threads; load {os.getloadavg()[0]:.1f}")
        print("| | logits off by, at most | AUC (val) | MB | images/s |")
        print("|---|--:|--:|--:|--:|")
        expected = contenders["torch, fp32"][1]()
        for name, (path, compute) in contenders.items():
            start = time.perf_counter()
            logits = compute()
            speed = len(images) / (time.perf_counter() - start)
            auc = np.mean(list(aucs(fakes, logits[: len(fakes)], reals, logits[len(fakes) :]).values()))
            off = np.abs(logits - expected).max()
            print(f"| {name} | {off:.2g} | {auc:.4f} | {path.stat().st_size / 1e6:.0f} | {speed:.0f} |")


if __name__ == "__main__":
    main()
