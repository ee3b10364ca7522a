"""Runs the benchmarks of merging: the product and its peers in turn, as processes of their own."""

import argparse
import datetime
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from signal import Signals
from typing import Any

from contenders import CASES, SCALING_COUNTS, Case, Contender, Setup
from measure import measure
from table import fill, markdown

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "r2m-benchmarks"
MARGIN_BYTES = 3 * 10**9
# Some machines hold OpenBLAS back to an older processor's instructions, which every user's would use.
HELD_BACK = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key not in HELD_BACK},
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}
PACKAGES = ("torch", "safetensors", "numpy", "r2m", "mergekit", "fusion_bench")

logger = logging.getLogger("benchmarks")


def run_case(case: Case, setup: Setup, repeats: int) -> dict[str, Any]:
    """Run every contender once a round; return all that was measured, as stored in results.json."""
    rows: list[dict[str, Any]] = [
        {"name": one.name, "reference": one.reference, "runs": []} for one in case.contenders
    ]
    record = {
        "title": case.title,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(setup.cache),
        "versions": {name: versions(python) for name, python in interpreters(case, setup).items()},
        "left_out": case.left_out,
        "rows": rows,
    }
    for contender, row in zip(case.contenders, rows, strict=True):
        if contender.startup:
            row["startup"] = startup(contender, setup, repeats)
    for index in range(repeats):
        run_round(case, rows, setup, is_last=index == repeats - 1)
    return record


def run_round(case: Case, rows: Sequence[dict[str, Any]], setup: Setup, is_last: bool) -> None:
    """Run every contender once; in the last round compare what peers wrote with what the first one wrote."""
    first = case.contenders[0]
    for contender, row in zip(case.contenders, rows, strict=True):
        if "failed" not in row:
            run_once(contender, row, setup)
        if is_last and contender.is_compared and contender.output.exists() and first.output.exists():
            row["difference"] = difference(setup, case.base, first.output, contender.output)
        if contender is not first:
            shutil.rmtree(contender.output.parent, ignore_errors=True)
    shutil.rmtree(first.output.parent, ignore_errors=True)


def run_once(contender: Contender, row: dict[str, Any], setup: Setup) -> None:
    """Add one run to a row, from warm inputs and after all earlier output has reached the disk."""
    folder = contender.output.parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.sync()
    warm(contender.inputs)
    log = setup.cache / "last.log"
    measured = measure(contender.command, log, ENVIRONMENT)
    if measured.status != 0:
        lines = log.read_text(errors="replace").strip().splitlines()
        end = f"exit status {measured.status}" if measured.status > 0 else Signals(-measured.status).name
        row["failed"] = f"{end}: {lines[-1] if lines else 'no message'}"
        logger.error("%s: %s", contender.name, row["failed"])
        return
    row["runs"].append(asdict(measured))
    logger.info("%s: %.1f s, %.2f GB", contender.name, measured.wall, measured.rss / 1e9)


def startup(contender: Contender, setup: Setup, repeats: int) -> list[float]:
    """Return seconds of an interpreter that imports what the contender imports, after a run that warms it."""
    log = setup.cache / "last.log"
    return [measure(contender.startup, log, ENVIRONMENT).wall for _ in range(repeats + 1)][1:]


def warm(paths: Sequence[Path]) -> None:
    """Read files, so that they stand in the page cache."""
    buffer = bytearray(2**22)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def difference(setup: Setup, base: Path, ours: Path, theirs: Path) -> float:
    """Return the relative difference of two merges; another process computes it, to keep this one small."""
    command = [setup.python, str(HERE / "compare.py"), str(base), str(ours), str(theirs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def interpreters(case: Case, setup: Setup) -> dict[str, str]:
    """Return the interpreters that a case uses, by the name of what they are for."""
    used = {str(Path(one.command[0]).parent) for one in case.contenders}
    return {
        name: python
        for name, python in {"r2m": setup.python, **setup.peers}.items()
        if str(Path(python).parent) in used
    }


def machine(cache: Path) -> dict[str, str]:
    """Describe processor, memory, disk, system, and how busy they are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "unknown")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    mount = subprocess.run(["df", "--output=fstype", cache], check=True, capture_output=True, text=True)
    return {
        "processor": processor,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{total / 1e9:.0f} GB",
        "file system": mount.stdout.split()[-1],
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def versions(python: str) -> dict[str, str]:
    """Return the versions of the packages that matter in an interpreter's environment."""
    text = (
        "import json, platform, importlib.metadata as m\n"
        "found = {d.metadata['Name'].replace('-', '_'): d.version for d in m.distributions()}\n"
        f"known = {{name: found[name] for name in {PACKAGES!r} if name in found}}\n"
        "print(json.dumps({'python': platform.python_version(), **known}))"
    )
    return json.loads(subprocess.run([python, "-c", text], check=True, capture_output=True, text=True).stdout)


def check_space(setup: Setup, names: Sequence[str]) -> None:
    """Stop where the disk has no room for the checkpoints of the scaling benchmark."""
    if "scaling" not in names:
        return
    base = setup.checkpoints("vit_base", min(SCALING_COUNTS))[0]
    present = len(list(base.parent.glob("s*.safetensors")))
    needed = (max(SCALING_COUNTS) - present) * base.stat().st_size + MARGIN_BYTES
    free = shutil.disk_usage(setup.cache).free
    if free < needed:
        sys.exit(f"{setup.cache}: scaling needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free")


def run_cases(setup: Setup, names: Sequence[str], repeats: int, results: Path) -> dict[str, Any]:
    """Run cases one by one; each is stored when it ends, beside those of earlier calls."""
    stored = json.loads(results.read_text()) if results.exists() else {}
    for name in names:
        logger.info("%s", name)
        present = set((setup.cache / "vit_base").glob("*.safetensors"))
        try:
            stored[name] = run_case(CASES[name](setup), setup, repeats)
        finally:
            shutil.rmtree(setup.cache / "out", ignore_errors=True)
            if name == "scaling":
                for path in set((setup.cache / "vit_base").glob("*.safetensors")) - present:
                    path.unlink()
        results.write_text(json.dumps({key: stored[key] for key in CASES if key in stored}, indent=2) + "\n")
    return stored


def main() -> None:
    """Parse the command line, run, write the results; exits with 1 where a contender failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)} (default: all)")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="FOLDER", help=f"default: {CACHE}")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--python", default=sys.executable, help="interpreter with r2m (default: this one)")
    parser.add_argument("--mergekit", metavar="PYTHON", help="interpreter with mergekit (default: made)")
    parser.add_argument("--fusion-bench", metavar="PYTHON", help="interpreter with fusion_bench")
    parser.add_argument(
        "--publish", action="store_true", help="write this folder's results.json and README.md"
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"unknown: {', '.join(unknown)}; expected {', '.join(CASES)}")
    if arguments.repeats < 1:
        parser.error("--repeats: expected at least 1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    given = {"mergekit": arguments.mergekit, "fusion_bench": arguments.fusion_bench}
    cache = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    setup = Setup(cache, arguments.python, {name: python for name, python in given.items() if python})
    names = arguments.cases or list(CASES)
    check_space(setup, names)
    results = (HERE if arguments.publish else cache) / "results.json"
    stored = run_cases(setup, names, arguments.repeats, results)
    text = markdown(stored)
    (cache / "results.md").write_text(text)
    if arguments.publish:
        fill(HERE / "README.md", text)
    sys.stdout.write(text)
    sys.exit(any("failed" in row for name in names for row in stored[name]["rows"]))


if __name__ == "__main__":
    main()
