"""One training in several processes, each with a share of every batch: DistributedDataParallel."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.multiprocessing as mp
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from r2m.errors import R2MError
from r2m.session import Session

# What torchrun tells its processes.
SIZE, LOCAL_RANK = "WORLD_SIZE", "LOCAL_RANK"


@dataclass(frozen=True)
class World:
    """The processes of a training, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, rows: pd.DataFrame, parts: int = 1) -> list[pd.DataFrame]:
        """Return this process's rows in `parts`: every n-th row, so that all hold fakes and reals alike.

        A share can be empty where there are fewer rows than processes and parts.
        """
        stride = self.size * parts
        return [rows.iloc[self.rank * parts + part :: stride] for part in range(parts)]

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return the model such that gradients are averaged over processes."""
        if self.size == 1:
            return model
        # Some backbones have parameters that the logit does not depend on.
        return DistributedDataParallel(model, find_unused_parameters=True)

    def mean(self, value: float, device: torch.device) -> float:
        """Return the mean of what the processes hold."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(total)
        return total.item() / self.size

    def predict(self, session: Session, rows: pd.DataFrame) -> np.ndarray:
        """Return the logits `(n,)` of `rows`, of which every process computes a share."""
        own = session.predict(rows.iloc[self.rank :: self.size])
        if self.size == 1:
            return own
        shares: list[Any] = [None] * self.size
        distributed.all_gather_object(shares, own)
        logits = np.empty(len(rows), own.dtype)
        for rank, share in enumerate(shares):
            logits[rank :: self.size] = share
        return logits


ALONE = World()


def are_launched() -> bool:
    """Whether this is one of several processes already: of `launch`, or of torchrun."""
    return distributed.is_initialized() or int(os.environ.get(SIZE, 1)) > 1


@contextmanager
def world(device: str) -> Iterator[World]:
    """Join the other processes of `launch` or torchrun, if this is one of several."""
    if not are_launched():
        yield ALONE
        return
    if not distributed.is_initialized():
        _join(device, int(os.environ.get(LOCAL_RANK, 0)))
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def launch(function: Callable[..., None], arguments: Mapping[str, Any], count: int) -> None:
    """Call `function` with `arguments` in `count` processes of this machine, which share the threads.

    Raises:
        R2MError: one of them failed; the others are ended.
    """
    shared = {**arguments, "threads": max(1, arguments["threads"] // count)}
    with tempfile.TemporaryDirectory(prefix="r2m_") as folder:
        try:
            mp.spawn(_run, (function, shared, count, Path(folder), logging.root.level), nprocs=count)
        except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
            told = sorted(Path(folder).glob("error*"))
            raise R2MError(told[0].read_text(encoding="utf-8") if told else str(error)) from error


def _run(
    rank: int,
    function: Callable[..., None],
    arguments: Mapping[str, Any],
    count: int,
    folder: Path,
    level: int,
) -> None:
    """Be process `rank` of `count`; bad input is told through a file of `folder`."""
    logging.basicConfig(
        level=level if rank == 0 else logging.WARNING, format="%(levelname).1s %(name)s: %(message)s"
    )
    try:
        store = f"file://{folder}/store"
        _join(arguments["compute"].device, rank, init_method=store, rank=rank, world_size=count)
        function(**arguments)
    except R2MError as error:
        (folder / f"error{rank}").write_text(str(error), encoding="utf-8")
        raise


def _join(device: str, local_rank: int, **group: Any) -> None:
    """Join the process group, on a GPU of its own where there are GPUs."""
    is_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if is_cuda:
        present = torch.cuda.device_count()
        if local_rank >= present:
            raise R2MError(f"finetune.processes: expected at most {present}, the number of GPUs")
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if is_cuda else "gloo", **group)
