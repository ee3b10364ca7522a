"""`r2m task-vector`: what fine-tuning changed in one specialist."""

from pathlib import Path

import click


@click.command()
@click.option("--base", type=click.Path(path_type=Path), required=True, help="Base weights.")
@click.option("--specialist", type=click.Path(path_type=Path), required=True, help="The specialist's model.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Task vector to write.")
@click.option("--head", type=click.Path(path_type=Path), required=True, help="Head to write.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def command(base: Path, specialist: Path, out: Path, head: Path, threads: int) -> None:
    """Subtract the base from a specialist and put its head aside."""
    import torch

    from r2m.merge.stages.task_vector import write_task_vector

    torch.set_num_threads(threads)
    write_task_vector(base, specialist, out, head)
