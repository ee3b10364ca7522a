"""The bench of the options that commands of experiments share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from r2m.evaluate.bench import Bench, open_bench
from r2m.models.options import BackboneOptions
from r2m.session_files import Compute, MergeParts, SessionFiles


def bench_of(
    manifests: Sequence[Path],
    trunks: Sequence[Path],
    base: Path,
    backbone: BackboneOptions,
    task_vector: Mapping[str, Path],
    head: Mapping[str, Path],
    initial_head: Path,
    device: str,
    precision: str,
    threads: int,
) -> Bench:
    """Open what `r2m.cli.compute.bench_options` name."""
    files = SessionFiles(tuple(manifests), tuple(trunks), base)
    parts = MergeParts(task_vector, head, initial_head)
    return open_bench(files, Compute(backbone, device, precision), parts, threads)
