"""`r2m residual`: what one specialist adds to the shared Real component."""

from pathlib import Path

import click

from r2m.cli.named_file import named_files


@click.command()
@click.option("--tune", type=click.Path(path_type=Path), required=True, help="Chosen options of the variant.")
@click.option("--real", type=click.Path(path_type=Path), required=True, help="Real component.")
@named_files("--task-vector", required=True, help="A specialist's task vector; all must be given.")
@click.option("--specialist", required=True, help="Whose residual to write.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Residual to write.")
@click.option("--report", type=click.Path(path_type=Path), required=True, help="JSON to write.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def command(
    tune: Path,
    real: Path,
    task_vector: dict[str, Path],
    specialist: str,
    out: Path,
    report: Path,
    threads: int,
) -> None:
    """Truncate one specialist's residual beside the Real component."""
    import torch

    from r2m.merge.stages.residual import write_residual

    torch.set_num_threads(threads)
    write_residual(tune, real, task_vector, specialist, out, report)
