"""Resumable state of a fine-tuning: safetensors, so that nothing unpickles."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from r2m.errors import R2MError
from r2m.models import checkpoint


@dataclass
class Progress:
    """How far a fine-tuning has come."""

    step: int = 0
    best_auc: float = -1.0
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def save(path: Path, fingerprint: str, progress: Progress, model: nn.Module, optimizer: Optimizer) -> None:
    """Write everything that the next step depends on."""
    tensors = {f"best/{name}": tensor for name, tensor in progress.best.items()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"model/{name}"] = parameter.detach()
            for key, value in optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value
    tensors |= {f"buffer/{name}": buffer for name, buffer in model.named_buffers()}
    counters = {key: value for key, value in vars(progress).items() if key != "best"}
    checkpoint.save(path, tensors, {"fingerprint": fingerprint, "counters": counters})


def load(path: Path, fingerprint: str, model: nn.Module, optimizer: Optimizer) -> Progress | None:
    """Load a saved state into `model` and `optimizer`; return None where none belongs to this training."""
    if not path.exists():
        return None
    try:
        metadata = checkpoint.read_metadata(path)
        if metadata.get("fingerprint") != fingerprint:
            return None
        tensors, _ = checkpoint.load(path)
    except R2MError:
        return None
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(tensors[f"model/{name}"])
            optimizer.state[parameter] = {
                key: tensors[f"{key}/{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in tensors  # a parameter that the logit does not depend on has none
            }
    for name, buffer in model.named_buffers():
        buffer.copy_(tensors[f"buffer/{name}"])
    counters = json.loads(metadata["counters"])
    best = {name.removeprefix("best/"): t for name, t in tensors.items() if name.startswith("best/")}
    return Progress(**counters, best=best)
