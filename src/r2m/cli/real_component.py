"""`r2m real-component`: what the specialists share."""

from pathlib import Path

import click

from r2m.cli.named_file import named_files


@click.command()
@click.option("--tune", type=click.Path(path_type=Path), required=True, help="Chosen options of the variant.")
@named_files("--task-vector", required=True, help="A specialist's task vector; all must be given.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Real component to write.")
@click.option("--report", type=click.Path(path_type=Path), required=True, help="JSON to write.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def command(tune: Path, task_vector: dict[str, Path], out: Path, report: Path, threads: int) -> None:
    """Factorize the task vectors into a shared Real component."""
    import torch

    from r2m.merge.stages.real_component import write_real_component

    torch.set_num_threads(threads)
    write_real_component(tune, task_vector, out, report)
