"""AdamW and the schedule of its learning rate."""

import math

import torch
from torch import nn

from r2m.models.backbone import Detector
from r2m.models.heads import HEAD
from r2m.train.options import FinetuneOptions


def adamw(detector: Detector, options: FinetuneOptions) -> torch.optim.AdamW:
    """Return AdamW with a faster head and without weight decay on norms and biases."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(HEAD), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "base_lr": options.lr * (options.head_lr_factor if is_head else 1.0),
                "weight_decay": options.weight_decay if is_matrix else 0.0,
            }
            for (is_head, is_matrix), parameters in groups.items()
        ],
        lr=options.lr,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.AdamW, factor: float) -> None:
    """Give every group of `adamw` its own learning rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Return the factor of step `step` (from 0): linear warm-up, then half a cosine down to 0.

    `warmup` is its share of all `steps`.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
