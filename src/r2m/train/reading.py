"""Batches of a training, read and decoded beside it."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from r2m.models.read_ahead import read_ahead
from r2m.seeding import derive
from r2m.train.processes import World
from r2m.trunk.inputs import Inputs
from r2m.trunk.options import AugmentOptions

Item = TypeVar("Item")
Drawn = tuple[int, pd.DataFrame]


@dataclass(frozen=True)
class MicroBatch:
    """Images `(B, …)` that go through the model together, and their classes `(B,)`, 0 for Real."""

    images: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> "MicroBatch":
        """Return it on a device; the copy of pinned memory does not hold up the caller."""
        return MicroBatch(
            self.images.to(device, non_blocking=True), self.targets.to(device, non_blocking=True)
        )

    def pin_memory(self) -> "MicroBatch":
        """Return it in memory that a GPU can read."""
        return MicroBatch(self.images.pin_memory(), self.targets.pin_memory())


@dataclass(frozen=True)
class Batch:
    """What one process reads of a batch of `total` images."""

    step: int
    total: int
    parts: tuple[MicroBatch, ...]

    def pin_memory(self) -> "Batch":
        """Return it in memory that a GPU can read."""
        return Batch(self.step, self.total, tuple(part.pin_memory() for part in self.parts))


class BatchReader(Dataset[Batch]):
    """Reads the rows that were drawn for a step; `classes` are those of the generators, from 1 on."""

    def __init__(
        self,
        inputs: Inputs,
        augment: AugmentOptions | None,
        classes: Mapping[str, int],
        world: World,
        *,
        accumulate: int,
        name: str,
        seed: int,
    ) -> None:
        self._inputs, self._augment, self._classes = inputs, augment, classes
        self._world, self._accumulate, self._name, self._seed = world, accumulate, name, seed

    def __getitem__(self, drawn: Drawn) -> Batch:
        """Return this process's share of a batch, in micro-batches."""
        step, rows = drawn
        shares = [share for share in self._world.share(rows, self._accumulate) if len(share)]
        own = pd.concat(shares)
        images = self._inputs.fetch(own, self._augment, derive(self._seed, "augment", self._name, str(step)))
        labels = zip(own["generator"], own["label"], strict=True)
        targets = torch.tensor([self._classes[generator] if label else 0 for generator, label in labels])
        ends = np.cumsum([len(share) for share in shares])[:-1].tolist()
        parts = zip(torch.tensor_split(images, ends), torch.tensor_split(targets, ends), strict=True)
        return Batch(step, len(rows), tuple(MicroBatch(*part) for part in parts))


def batches(
    reader: BatchReader, drawn: Iterable[Drawn], device: torch.device, *, workers: int, threads: int
) -> Iterator[Batch]:
    """Yield what `reader` makes of the rows drawn for each step, in order, read ahead of the model.

    That is done in `threads` of this process, or by `workers` processes.
    """
    is_pinned = device.type == "cuda"
    if workers:
        yield from DataLoader(
            reader,
            batch_size=None,
            sampler=drawn,
            num_workers=workers,
            pin_memory=is_pinned,
            worker_init_fn=_alone,
            persistent_workers=False,
        )
    else:
        for batch in read_ahead(reader.__getitem__, drawn, threads):
            yield batch.pin_memory() if is_pinned else batch


def _alone(worker: int) -> None:
    """Let a reading process take one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


class Stopwatch:
    """Measures which part of the time an iteration waits for its next item."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._started = time.perf_counter()

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items."""
        iterator = iter(items)
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - before
            yield item

    @property
    def seconds(self) -> float:
        """Seconds since the watch was made."""
        return time.perf_counter() - self._started
