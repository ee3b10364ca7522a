"""What the stages of the workflow took: time and memory, from Snakemake's benchmark files."""

import math
from pathlib import Path

import pandas as pd

from r2m.errors import R2MError

# In the order in which the data passes through them; stages that are not named here follow by name.
STAGES = (
    "source",
    "base",
    "faces",
    "forge",
    "trunk",
    "finetune",
    "joint",
    "joint_multiclass",
    "probe",
    "task_vector",
    "statistics",
    "tune",
    "real_component",
    "residual",
    "merge",
    "score",
)
# Snakemake's columns: wall-clock and CPU seconds, and the greatest resident memory in MiB.
MEASURED = {"s": "wall_seconds", "cpu_time": "cpu_seconds", "max_rss": "peak_mib"}
TOTAL = "all"


def read_benchmarks(folder: str | Path) -> pd.DataFrame:
    """Read all `STAGE/JOB.tsv` and `STAGE.tsv` below a folder: one row per job, NaN where not measured.

    Columns are stage, job (path below the stage, without suffix), wall_seconds, cpu_seconds and peak_mib.

    Raises:
        R2MError: a file that is no benchmark of Snakemake's.
    """
    folder = Path(folder)
    parts = []
    for path in sorted(folder.rglob("*.tsv")):
        stage, *job = path.relative_to(folder).with_suffix("").parts
        parts.append(_read(path).assign(stage=stage, job="/".join(job)))
    columns = ["stage", "job", *MEASURED.values()]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def cpu_seconds(path: Path) -> float:
    """Return the CPU time of one benchmark file's job: NaN where there is no file, or nothing was measured.

    Raises:
        R2MError: a file that is no benchmark of Snakemake's.
    """
    return float(_read(path)["cpu_seconds"].mean()) if path.exists() else math.nan


def _read(path: Path) -> pd.DataFrame:
    try:
        measured = pd.read_csv(path, sep="\t", na_values=["-", "NA"])[list(MEASURED)].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise R2MError(f"{path}: not a benchmark file of Snakemake: {error}") from error
    return measured.rename(columns=MEASURED)


def runtime_table(benchmarks: pd.DataFrame) -> pd.DataFrame:
    """Sum the jobs of each stage: columns stage, jobs, cpu_seconds, wall_seconds and peak_mib.

    The peak is that of the greatest job. A last row `all` holds the whole; without jobs there is no row.
    """
    others = sorted(set(benchmarks["stage"]) - set(STAGES))
    order = [*STAGES, *others, TOTAL]
    summed = (
        pd.concat([benchmarks, benchmarks.assign(stage=TOTAL)])
        .groupby("stage")
        .agg(
            jobs=("job", "size"),
            cpu_seconds=("cpu_seconds", "sum"),
            wall_seconds=("wall_seconds", "sum"),
            peak_mib=("peak_mib", "max"),
        )
    )
    return summed.loc[[name for name in order if name in summed.index]].reset_index()
