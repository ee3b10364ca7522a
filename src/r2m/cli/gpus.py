"""A GPU of its own for each job of a machine: jobs that run side by side take different ones."""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from r2m.errors import R2MError

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Locks of the GPUs that this process has; they end with it, however it ends.
_held: list[TextIOWrapper] = []


def claim(count: int, pause: float = 1.0) -> None:
    """Let this process see `count` GPUs that no other job of this user has, and keep them to its end.

    Waits while too few are free on the machine. What a cluster's scheduler has given, exactly `count`, is
    taken as it is. Call it before torch uses a GPU.

    Raises:
        R2MError: there are fewer GPUs.
    """
    visible = _visible()
    if len(visible) < count:
        raise R2MError(f"{count} GPUs are needed for this job, and {len(visible)} can be seen here")
    if VISIBLE in os.environ and len(visible) == count:
        return
    folder = Path(tempfile.gettempdir(), f"r2m_gpus_{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    while len(taken := _lock(visible, count, folder)) < count:
        logger.info("waiting for %d of the GPUs %s", count, ", ".join(visible))
        time.sleep(pause)
    os.environ[VISIBLE] = ",".join(taken)


def _visible() -> list[str]:
    """Return the names of the GPUs that a process may use."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _lock(names: Sequence[str], count: int, folder: Path) -> list[str]:
    """Lock the first `count` free GPUs, or none if there are not as many, and return their names."""
    taken: dict[str, TextIOWrapper] = {}
    for name in names:
        if len(taken) == count:
            break
        file = open(folder / f"{name}.lock", "w", encoding="utf-8")  # noqa: SIM115 - it stays open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken[name] = file
        except BlockingIOError:
            file.close()
    if len(taken) < count:
        for file in taken.values():
            file.close()
        return []
    _held.extend(taken.values())
    return list(taken)
