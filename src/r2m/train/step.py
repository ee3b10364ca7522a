"""One step of a training: gradients of a batch, in parts where it is large, and the optimizer."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from r2m.errors import R2MError
from r2m.models.backbone import Detector
from r2m.models.precision import autocast
from r2m.train.processes import World
from r2m.train.reading import Batch, MicroBatch


class Classifier(nn.Module):
    """From the detector's input to its head's outputs, for what calls `forward` alone."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs `(B, 1)`, or `(B, classes)`."""
        return self.detector.class_logits(x)


def objective(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of outputs `(B, 1)` or `(B, classes)`; `targets` `(B,)` are 0 for Real."""
    if outputs.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(outputs.squeeze(1), (targets > 0).float())
    return F.cross_entropy(outputs, targets)


def accumulate_gradients(
    model: nn.Module,
    batch: Batch,
    penalty: Callable[[], Tensor | None],
    device: torch.device,
    precision: str,
    world: World,
) -> float:
    """Add the gradients of this process's share of a batch to the parameters; return the loss of the share.

    The loss of the whole batch is the mean over its images, however it is shared out: a micro-batch counts by
    its size, and DistributedDataParallel averages over processes. `penalty` is added to it once.
    """
    total = 0.0
    for number, part in enumerate(batch.parts):
        part = part.to(device)
        is_last = number == len(batch.parts) - 1
        with _unshared(model, is_last):
            with autocast(device, precision):
                outputs = model(part.images)
            share = len(part.targets) * world.size / batch.total
            loss = objective(outputs.float(), part.targets) * share
            added = penalty() if is_last else None
            if added is not None:
                loss = loss + added
            loss.backward()
        total += loss.item()
    return total


def _unshared(model: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Keep gradients in this process until the last micro-batch."""
    if is_last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return cast(AbstractContextManager[None], model.no_sync())


def out_of_memory(
    detector: Detector, part: MicroBatch, pairs: int, accumulate: int, device: torch.device, precision: str
) -> R2MError:
    """Return the error for a micro-batch that does not fit into memory, with a size that was seen to fit."""
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    fitting = _largest_that_fits(detector, parameters, part, device, precision)
    if not fitting:
        return R2MError(
            f"{device} is out of memory with one image; expected a smaller backbone or image_size"
        )
    share = fitting / len(part.targets)
    fewer = max(1, int(pairs * share))
    return R2MError(
        f"{device} is out of memory: finetune.pairs is {pairs}, and {fewer} would fit; expected that, or"
        f" `finetune.accumulate: {-(-accumulate * len(part.targets) // fitting)}`, which trains the same"
    )


def _largest_that_fits(
    detector: Detector,
    parameters: Sequence[nn.Parameter],
    part: MicroBatch,
    device: torch.device,
    precision: str,
) -> int:
    """Return half of the images, or a quarter, …: the first number whose gradients fit, 0 if none does."""
    count = len(part.targets) // 2
    while count:
        try:
            fewer = MicroBatch(part.images[:count], part.targets[:count]).to(device)
            with autocast(device, precision):
                outputs = detector.class_logits(fewer.images)
            loss = objective(outputs.float(), fewer.targets)
            torch.autograd.grad(loss, parameters, allow_unused=True)
            return count
        except torch.OutOfMemoryError:
            count //= 2
    return 0
