"""What the stages of the workflow took: time and memory, from the benchmark files of the jobs."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from r2m.errors import R2MError

# Named as by Snakemake: wall-clock and CPU seconds, and the greatest resident memory in MiB.
MEASURED = {"s": "wall_seconds", "cpu_time": "cpu_seconds", "max_rss": "peak_mib"}
TOTAL = "all"


def read_benchmarks(files: Mapping[str, Mapping[str, Path]]) -> pd.DataFrame:
    """Read the benchmark files of jobs, given by stage and job: one row per job, NaN where not measured.

    Columns are stage, job, wall_seconds, cpu_seconds and peak_mib. Files that are not there are left out: the
    results of those jobs came from DVC.

    Raises:
        R2MError: a file that is no benchmark file.
    """
    parts = [
        _read(path).assign(stage=stage, job=job)
        for stage, jobs in files.items()
        for job, path in jobs.items()
        if path.exists()
    ]
    columns = ["stage", "job", *MEASURED.values()]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def cpu_seconds(path: Path) -> float:
    """Return the CPU time of one benchmark file's job: NaN where there is no file, or nothing was measured.

    Raises:
        R2MError: a file that is no benchmark file.
    """
    return float(_read(path)["cpu_seconds"].mean()) if path.exists() else math.nan


def _read(path: Path) -> pd.DataFrame:
    try:
        measured = pd.read_csv(path, sep="\t", na_values=["-", "NA"])[list(MEASURED)].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: not a benchmark file of a job: {error}") from error
    return measured.rename(columns=MEASURED)


def runtime_table(benchmarks: pd.DataFrame) -> pd.DataFrame:
    """Sum the jobs of each stage: columns stage, jobs, cpu_seconds, wall_seconds and peak_mib.

    Stages come in their first order. The peak is that of the greatest job. A last row `all` holds the whole;
    without jobs there is no row.
    """
    summed = (
        pd.concat([benchmarks, benchmarks.assign(stage=TOTAL)])
        .groupby("stage", sort=False)
        .agg(
            jobs=("job", "size"),
            cpu_seconds=("cpu_seconds", "sum"),
            wall_seconds=("wall_seconds", "sum"),
            peak_mib=("peak_mib", "max"),
        )
    )
    return summed.reset_index()
