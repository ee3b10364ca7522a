"""Fine-tuning of a detector on the fakes of some generators and their reals."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from r2m.errors import R2MError
from r2m.models.backbone import Detector
from r2m.models.heads import HEAD
from r2m.models.precision import autocast
from r2m.models.read_ahead import read_ahead
from r2m.seeding import derive
from r2m.session import Session
from r2m.train import state
from r2m.train.options import FinetuneOptions
from r2m.train.rows import rows_of
from r2m.train.sampling.epochs import sampler_of, total_steps
from r2m.train.state import Progress
from r2m.train.validation import generator_aucs
from r2m.trunk.options import AugmentOptions

logger = logging.getLogger(__name__)


def finetune(
    session: Session,
    generators: Sequence[str],
    options: FinetuneOptions,
    augment: AugmentOptions | None,
    *,
    name: str,
    seed: int,
    state_path: Path,
    fingerprint: str,
) -> Progress:
    """Train the session's detector and return the progress, with the tensors of the best val AUC in `best`.

    A head with one output learns Fake against Real; one with more learns the class of every image, which is 0
    for Real and then the place of its generator in `generators`.

    Batches are read ahead of the model. Resumes from `state_path` if that holds a state with the same
    `fingerprint`, bit-identical to an uninterrupted training on the same machine, since what is drawn for a
    step depends on the seed and its number alone.

    Raises:
        R2MError: no images in a split, or a loss that is not finite.
    """
    detector, inputs, device = session.detector, session.inputs, session.device
    optimizer = _optimizer(detector, options)
    fakes, reals = rows_of(inputs, generators, "train")
    sampler = sampler_of(options, fakes, reals, name=name, seed=seed)
    steps = total_steps(options, sampler.epoch)
    classes = {generator: number for number, generator in enumerate(generators, start=1)}
    progress = state.load(state_path, fingerprint, detector, optimizer) or Progress()
    if progress.step:
        logger.info("%s: resumed after step %d of %d", name, progress.step, steps)
    bar = tqdm(total=steps, initial=progress.step, desc=name, unit="step", disable=None)

    def read(drawn: tuple[int, pd.DataFrame]) -> tuple[int, Tensor, Tensor]:
        step, rows = drawn
        batch = inputs.fetch(rows, augment, derive(seed, "augment", name, str(step)))
        labels = zip(rows["generator"], rows["label"], strict=True)
        return step, batch, torch.tensor([classes[generator] if label else 0 for generator, label in labels])

    drawn = sampler.batches(progress.step, steps)
    for step, batch, targets in read_ahead(read, drawn, inputs.threads):
        set_learning_rate(optimizer, learning_rate_factor(step, steps, options.warmup))
        loss = _step(
            detector, optimizer, batch.to(device), targets.to(device), options, step, session.precision
        )
        if not math.isfinite(loss):
            raise R2MError(f"{name}: the loss is {loss} at step {step + 1}; try a smaller finetune.lr")
        progress.step = step + 1
        progress.losses.append(loss)
        bar.update()
        if progress.step % options.validate_every == 0 or progress.step == steps:
            auc = _validate(session, generators)
            _record(progress, detector, auc, name)
        if progress.step % options.checkpoint_every == 0 and progress.step < steps:
            state.save(state_path, fingerprint, progress, detector, optimizer)
    bar.close()
    return progress


def _record(progress: Progress, detector: Detector, auc: float, name: str) -> None:
    """Add a row to the history, and keep the tensors if no earlier val AUC is as good."""
    if math.isnan(auc):
        raise R2MError(
            f"{name}: logits of val images are not finite after step {progress.step};"
            " try a smaller finetune.lr"
        )
    if auc > progress.best_auc:
        progress.best_auc, progress.best_step = auc, progress.step
        progress.best = {key: tensor.clone() for key, tensor in detector.trainable_state().items()}
    loss = sum(progress.losses) / len(progress.losses)
    progress.history.append({"step": progress.step, "loss": loss, "val_auc": auc})
    progress.losses.clear()
    logger.info("%s: step %d, loss %.4f, val AUC %.4f", name, progress.step, loss, auc)


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Return the factor of step `step` (from 0): linear warm-up, then half a cosine down to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def set_learning_rate(optimizer: torch.optim.AdamW, factor: float) -> None:
    """Set the learning rates of all groups to `factor` times their peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _optimizer(detector: Detector, options: FinetuneOptions) -> torch.optim.AdamW:
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
    )


def _step(
    detector: Detector,
    optimizer: torch.optim.AdamW,
    batch: Tensor,
    targets: Tensor,
    options: FinetuneOptions,
    step: int,
    precision: str,
) -> float:
    """Take one optimizer step and return the loss before it."""
    detector.train()
    with autocast(batch.device, precision):
        outputs = detector.class_logits(batch)
    loss = objective(outputs.float(), targets)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in detector.parameters() if p.requires_grad], options.clip_norm)
    optimizer.step()
    return loss.item()


def objective(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of outputs `(B, 1)` or `(B, classes)`; `targets` `(B,)` are 0 for Real."""
    if outputs.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(outputs.squeeze(1), (targets > 0).float())
    return F.cross_entropy(outputs, targets)


def _validate(session: Session, generators: Sequence[str]) -> float:
    """Return the mean over `generators` of val AUC."""
    aucs = generator_aucs(session, *rows_of(session.inputs, generators, "val"))
    return float(np.mean(list(aucs.values())))
