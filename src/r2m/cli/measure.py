"""What a process took: CPU time and memory, in the format of Snakemake's benchmark files."""

import resource
import sys
from datetime import timedelta
from pathlib import Path

from r2m.files import write_text

# Snakemake's columns; what is not measured here is NA.
COLUMNS = (
    *("s", "h:m:s", "max_rss", "max_vms", "max_uss", "max_pss"),
    *("io_in", "io_out", "mean_load", "cpu_time"),
)
STATUS = Path("/proc/self/status")
# ru_maxrss is in bytes on macOS, elsewhere in KiB.
PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def write_benchmark(path: Path, seconds: float) -> None:
    """Write what this process and its children took, which has worked for so many seconds."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    measured = {
        "s": f"{seconds:.4f}",
        "h:m:s": str(timedelta(seconds=int(seconds))),
        "max_rss": f"{max(_peak(own), children.ru_maxrss / PER_MIB):.2f}",
        "mean_load": f"{100 * cpu / max(seconds, 1e-3):.2f}",
        "cpu_time": f"{cpu:.2f}",
    }
    row = "\t".join(measured.get(name, "NA") for name in COLUMNS)
    header = "\t".join(COLUMNS)
    write_text(path, f"{header}\n{row}\n")


def _peak(own: resource.struct_rusage) -> float:
    """Return the greatest resident memory of this process in MiB."""
    if STATUS.exists():  # on Linux ru_maxrss counts what the starting process had, too
        fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) / 2**10
    return own.ru_maxrss / PER_MIB
