"""What `slurm.sh` does once Slurm runs: the tiny workflow with and without it, a killed job, a comparison."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from workflow_project import Project, create, kill, wait_for

PROFILE = "workflow/profiles/slurm"
# As many threads as a job on Slurm finds, so that sums are made in the same order.
LOCAL = ("--executor", "local", "--cores", str(min(4, len(os.sched_getaffinity(0)))))
# Its jobs last seconds.
ON_SLURM = ("--slurm-init-seconds-before-status-checks", "2")
ON_GPU = ("--set-resources", "finetune:slurm_partition=gpu", "finetune:gpu=1")
TRAINING = {"steps": 200, "validate_every": 50, "checkpoint_every": 10}
KILLED = "rule_finetune_wildcards_swap_0"
STATE = "results/.state/swap/seed0.safetensors"
LOG = "results/logs/finetune/swap/seed0.log"
COMPARED = {".safetensors", ".parquet", ".csv", ".json", ".md", ".tex"}
# What tells how long jobs took.
TIMED = {"runtimes.csv", "model_card.md"}


@dataclass(frozen=True)
class SlurmJob:
    """A job as `squeue` tells of it; `comment` holds the rule and the wildcards."""

    number: str
    comment: str
    state: str
    memory: str
    cpus: int

    def is_of(self, rule: str) -> bool:
        return self.comment == f"rule_{rule}" or self.comment.startswith(f"rule_{rule}_wildcards_")


def main(work: Path, *targets: str) -> None:
    """Run the targets with and without Slurm, and check what came out.

    Raises:
        SystemExit: a check fails.
    """
    local = create(work / "local")
    for key, value in TRAINING.items():
        local.edit(f"finetune.{key}", value)
    on_slurm = local.copy(work / "slurm")
    planned = len(re.findall(r"^rule ", on_slurm.snakemake("--dry-run", "--", *targets), flags=re.MULTILINE))

    start = time.monotonic()
    local.run(*snakemake(*LOCAL, "--", *targets))
    print(f"Without Slurm: {planned} jobs in {time.monotonic() - start:.0f} s", flush=True)

    start = time.monotonic()
    output = run_and_kill_one(on_slurm, work / "snakemake.log", *targets)
    print(f"On Slurm: {planned} jobs in {time.monotonic() - start:.0f} s", flush=True)
    check("Trying to restart job" in output, "Snakemake did not try the killed job again")
    check_jobs(slurm_jobs(), planned)
    check(
        "swap: resumed after step" in (on_slurm / LOG).read_text(),
        f"the second attempt began anew: {on_slurm / LOG}",
    )
    again = on_slurm.snakemake("--dry-run", "--", *targets)
    check("Nothing to be done" in again, f"without Slurm these results count as outdated:\n{again}")
    compare(local, on_slurm)


def snakemake(*arguments: str) -> list[str]:
    """Return Snakemake's command line with the profile."""
    return [sys.executable, "-m", "snakemake", "--workflow-profile", PROFILE, *arguments]


def run_and_kill_one(project: Project, log: Path, *targets: str) -> str:
    """Run the workflow on Slurm, cancel a fine-tuning after its first checkpoint, return the log."""
    with log.open("w") as file:
        process = subprocess.Popen(
            snakemake(*ON_SLURM, *ON_GPU, "--", *targets),
            cwd=project.root,
            env=project.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            wait_for((project / STATE).exists, process, seconds=3600)
            (job,) = (job for job in slurm_jobs() if job.comment == KILLED)
            subprocess.run(["scancel", job.number], check=True)
            print(f"Cancelled after its first checkpoint: {job}", flush=True)
            process.wait(timeout=3600)
        finally:
            kill(process)
    output = log.read_text()
    check(process.returncode == 0, f"Snakemake returned {process.returncode}:\n{output[-5000:]}")
    return output


def slurm_jobs() -> list[SlurmJob]:
    """Return all jobs that Slurm was given."""
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%k|%T|%m|%C"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fields = sorted((line.split("|") for line in listed.splitlines()), key=lambda row: int(row[0]))
    return [SlurmJob(*rest, cpus=int(cpus)) for *rest, cpus in fields]


def check_jobs(jobs: list[SlurmJob], planned: int) -> None:
    """Check that each job completed, on the CPUs of the profile, and the killed one when tried again."""
    states = Counter(job.state for job in jobs)
    check(
        states == {"COMPLETED": planned, "CANCELLED": 1}, f"{planned} jobs were planned; Slurm had {states}"
    )
    first, second = (job for job in jobs if job.comment == KILLED)
    print(f"Tried again: {second}", flush=True)
    check(megabytes(second) == 2 * megabytes(first), "the second attempt did not get twice the memory")
    profile = yaml.safe_load(Path(PROFILE, "config.yaml").read_text())
    for rule, threads in profile["set-threads"].items():
        cpus = {job.cpus for job in jobs if job.is_of(rule)}
        check(cpus <= {threads}, f"{rule}: {cpus} CPUs, {threads} in the profile")
    command = ["scontrol", "show", "job", second.number]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    is_on_gpu = "Partition=gpu" in told and re.search(r"TresPerJob=gres[:/]gpu:1", told)
    check(bool(is_on_gpu), f"the fine-tuning did not ask for a GPU:\n{told}")


def megabytes(job: SlurmJob) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([MG])", job.memory).groups()
    return float(number) * {"M": 1, "G": 1024}[unit]


def compare(local: Project, on_slurm: Project) -> None:
    """Check that both runs wrote the same checkpoints, scores and tables, to the bit."""
    files, others = (tables_and_tensors(project) for project in (local, on_slurm))
    check(files == others, f"one run only wrote {sorted(map(str, files ^ others))}")
    pairs = ((path, local.root / path, on_slurm.root / path) for path in sorted(files))
    unequal = [str(path) for path, one, other in pairs if one.read_bytes() != other.read_bytes()]
    check(not unequal, f"the runs differ in {unequal}")
    kinds = Counter(path.suffix for path in files)
    print(
        f"The same bits: {', '.join(f'{count} {suffix}' for suffix, count in sorted(kinds.items()))}",
        flush=True,
    )


def tables_and_tensors(project: Project) -> set[Path]:
    """Return the paths of results that hold no times and no paths of the machine."""
    results = project / "results"
    return {
        path.relative_to(project.root)
        for path in results.rglob("*")
        if path.suffix in COMPARED and path.name not in TIMED
    }


def check(holds: bool, message: str) -> None:
    if not holds:
        raise SystemExit(f"slurm.sh: {message}")


if __name__ == "__main__":
    # So that Snakemake is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main(Path(sys.argv[1]), *sys.argv[2:])
