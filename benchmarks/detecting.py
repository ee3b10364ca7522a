"""What `r2m detect` takes: photographs a second and by stage, videos, memory, cold start, ONNX Runtime.

    python benchmarks/detecting.py MODEL --faces FOLDER --photographs FOLDER

Photographs are links to those of a folder, over and over; the clip is drawn from the first of them. Stages
are CPU time on one thread; all else are processes of their own on `--threads`, whose rates leave start-up
aside.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measure import Measurement, measure

STAGES = ("decode", "find faces", "align", "encode", "score")
SCORED = 128


def linked(photographs: list[Path], folder: Path, count: int) -> Path:
    """Fill a folder with so many links to photographs."""
    folder.mkdir()
    for number in range(count):
        source = photographs[number % len(photographs)]
        (folder / f"{number:06}{source.suffix}").symlink_to(source)
    return folder


def stages(model: Path, faces: Path, files: list[Path]) -> dict[str, float]:
    """Return the CPU seconds that each stage takes of all files, on one thread."""
    import torch
    from videos import Clock

    from r2m.data import faces as aligning
    from r2m.detection import detecting, finding
    from r2m.models.image_detector import ImageDetector, load

    torch.set_num_threads(1)
    detector = load(model, device="cpu")
    finder = finding.FaceFinder(detector.config, faces / "yunet.onnx", every=False, frames=32)
    list(detecting.detect(files[:2], detector, finder))  # networks are read at first
    clock = Clock()
    for part, owner, name in (
        ("decode", finding, "read_image"),
        ("find faces", aligning.FaceDetector, "every"),
        ("align", aligning, "align"),
        ("encode", finding.FaceFinder, "_encoded"),
        ("score", ImageDetector, "logits"),
    ):
        setattr(owner, name, clock.timed(part, getattr(owner, name)))
    # Stages are timed in one thread after the other: the process's CPU time tells them apart.
    seen = list(map(finder, files))
    crops = [face.crop[..., ::-1] for one in seen for face in one.faces]
    detector.logits(crops)
    return dict(clock.seconds)


def scoring(model: Path, threads: int) -> Iterator[tuple[str, float]]:
    """Yield the crops a second that torch and ONNX Runtime score, the best of two."""
    import numpy as np
    import onnxruntime
    import torch

    from r2m.detection.export import export_onnx
    from r2m.models.image_detector import load

    def rate(score: Callable[[], object]) -> float:
        score()
        times = []
        for _ in range(2):
            start = time.perf_counter()
            score()
            times.append(time.perf_counter() - start)
        return SCORED / min(times)

    torch.set_num_threads(threads)
    detectors = {precision: load(model, device="cpu", precision=precision) for precision in ("fp32", "bf16")}
    size = detectors["fp32"].config.image_size
    crops = np.random.default_rng(0).integers(0, 256, (SCORED, size, size, 3)).astype(np.uint8)
    for name, detector in detectors.items():
        yield f"torch, {name}", rate(partial(detector.logits, crops))
    batches = np.split(crops.transpose(0, 3, 1, 2).astype(np.float32) / 255, SCORED // 64)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as scratch:
        for name, int8 in (("fp32", False), ("int8", True)):
            path = Path(scratch) / f"{name}.onnx"
            export_onnx(detectors["fp32"], path, int8=int8)
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            run = partial(session.run, ["logit"])
            yield f"ONNX Runtime, {name}", rate(partial(each, run, batches))


def each(run: Callable[[dict[str, Any]], object], batches: Iterable[Any]) -> None:
    """Run a session on every batch."""
    for batch in batches:
        run({"images": batch})


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


def whole(arguments: argparse.Namespace, scratch: Path) -> None:
    """Measure processes, and print a table."""
    from videos import RATE, SECONDS, draw_clip

    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(arguments.threads)}
    photographs = sorted(path.resolve() for path in arguments.photographs.glob("*.jpg"))
    log = scratch / "log"

    def ran(*words: str | Path) -> Measurement:
        measured = measure([sys.executable, *map(str, words)], log, environment)
        if measured.status not in (0, 1):  # 1: a photograph without a face
            sys.exit(f"{words}: exit status {measured.status}\n{log.read_text()[-2000:]}")
        return measured

    def detected(path: Path) -> Measurement:
        out = scratch / "table.csv"
        options = ("--model", arguments.model, "--faces", arguments.faces, "--device", "cpu")
        return ran("-m", "r2m", "detect", path, *options, "--out", out, "--force")

    print(f"{processor()}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}\n", flush=True)
    print("| | wall (s) | CPU (s) | peak (MB) | |\n|---|--:|--:|--:|---|")

    def row(name: str, measured: Measurement, note: str = "") -> None:
        cells = (f"{measured.wall:.1f}", f"{measured.cpu:.1f}", f"{measured.rss / 1e6:.0f}", note)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    row("`import torch`", ran("-c", "import torch"))
    row("one photograph, from the start", start := detected(photographs[0]))
    for count in arguments.images:
        measured = detected(linked(photographs, scratch / str(count), count))
        row(f"{count:,} photographs", measured, f"{count / (measured.cpu - start.cpu):.1f} a CPU second")
    draw_clip(scratch / "clip.mp4", photographs[0])
    measured = detected(scratch / "clip.mp4")
    multiple = SECONDS / (measured.cpu - start.cpu)
    note = f"{multiple:.1f} times real time, by CPU time"
    row(f"a clip of {SECONDS} s, 720p, {RATE} frames/s", measured, note)

    for stage in ("stages", "scoring"):
        count = str(min(arguments.images))
        ran(__file__, arguments.model, *("--faces", arguments.faces, "--photographs", scratch / count),
            *("--threads", str(arguments.threads), "--only", stage))  # fmt: skip
        print(f"\n{log.read_text()}", flush=True)


def main() -> None:
    """Parse the command line; `--only` is how this program starts what it measures inside a process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--faces", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--photographs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000], metavar="N")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--only", choices=["stages", "scoring"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only == "stages":
        files = sorted(arguments.photographs.iterdir())
        taken = stages(arguments.model, arguments.faces, files)
        print("| stage | CPU time of a photograph (ms) | share |\n|---|--:|--:|")
        for stage in STAGES:
            share = taken[stage] / sum(taken.values())
            print(f"| {stage} | {1000 * taken[stage] / len(files):.1f} | {share:.0%} |")
    elif arguments.only == "scoring":
        print("| scored by | crops a second |\n|---|--:|")
        for name, rate in scoring(arguments.model, arguments.threads):
            print(f"| {name} | {rate:.0f} |", flush=True)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            whole(arguments, Path(scratch))


if __name__ == "__main__":
    main()
