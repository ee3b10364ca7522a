"""Fine-tuning of a detector on the fakes of some generators and their reals."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from tqdm import tqdm

from r2m.errors import R2MError
from r2m.models.backbone import Detector
from r2m.session import Session
from r2m.train import state
from r2m.train.optimizer import adamw, learning_rate_factor, set_learning_rate
from r2m.train.options import FinetuneOptions
from r2m.train.processes import ALONE, World
from r2m.train.reading import Batch, BatchReader, Stopwatch, batches
from r2m.train.rows import rows_of
from r2m.train.sampling.epochs import sampler_of, total_steps
from r2m.train.state import Progress
from r2m.train.step import Classifier, accumulate_gradients, out_of_memory
from r2m.train.tuning.tuned import Tuning, tuned
from r2m.train.validation import aucs
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
    world: World = ALONE,
) -> Progress:
    """Train the session's detector and return the progress, with the tensors of the best val AUC in `best`.

    A head with one output learns Fake against Real; one with more learns the class of every image, which is 0
    for Real and then the place of its generator in `generators`.

    Batches are read ahead of the model, and shared out among the processes of `world`. Resumes from
    `state_path` if that holds a state with the same `fingerprint`, bit-identical to an uninterrupted training
    on the same machine, since what is drawn for a step depends on the seed and its number alone.

    The tuning method decides what is trained; afterwards the detector has the layers that it had.

    Raises:
        R2MError: no images in a split, a loss that is not finite, a batch that does not fit into memory, or a
            tuning method that does not fit the backbone.
    """
    with tuned(session.detector, options.tuning, seed) as tuning:
        return _train(
            session, tuning, generators, options, augment, name, seed, state_path, fingerprint, world
        )


def _train(
    session: Session,
    tuning: Tuning,
    generators: Sequence[str],
    options: FinetuneOptions,
    augment: AugmentOptions | None,
    name: str,
    seed: int,
    state_path: Path,
    fingerprint: str,
    world: World,
) -> Progress:
    """Train the parameters that require gradients, from a resumable state where there is one."""
    detector, inputs, device = session.detector, session.inputs, session.device
    _prepare(detector, options, device)
    optimizer = adamw(detector, options)
    model = world.wrapped(Classifier(detector))
    if options.compile:
        model.compile()
    sampler = sampler_of(options, *rows_of(inputs, generators, "train"), name=name, seed=seed)
    steps = total_steps(options, sampler.epoch)
    classes = {generator: number for number, generator in enumerate(generators, start=1)}
    reader = BatchReader(inputs, augment, classes, world, accumulate=options.accumulate, name=name, seed=seed)
    progress = state.load(state_path, fingerprint, detector, optimizer) or Progress()
    if progress.step:
        logger.info("%s: resumed after step %d of %d", name, progress.step, steps)
    bar = tqdm(total=steps, initial=progress.step, desc=name, unit="step", disable=None)
    drawn = sampler.batches(progress.step, steps)
    read = batches(reader, drawn, device, workers=options.workers, threads=inputs.threads)
    watch, images = Stopwatch(), 0
    for batch in watch.over(read):
        set_learning_rate(optimizer, learning_rate_factor(batch.step, steps, options.warmup))
        loss = _step(tuning, model, optimizer, batch, options, session, world)
        loss = world.mean(loss, device)
        if not math.isfinite(loss):
            raise R2MError(f"{name}: the loss is {loss} at step {batch.step + 1}; try a smaller finetune.lr")
        progress.step = batch.step + 1
        progress.losses.append(loss)
        images += batch.total
        bar.update()
        if progress.step % options.validate_every == 0 or progress.step == steps:
            _record(progress, tuning, _validate(session, generators, world), name)
            if _is_late(progress, options.patience):
                logger.info("%s: no better val AUC since step %d", name, progress.best_step)
                break
        if world.is_first and progress.step % options.checkpoint_every == 0 < steps - progress.step:
            state.save(state_path, fingerprint, progress, detector, optimizer)
    bar.close()
    _report(name, images, watch)
    return progress


def _prepare(detector: Detector, options: FinetuneOptions, device: torch.device) -> None:
    """Set up what makes training smaller or faster, and changes no result beyond rounding."""
    if options.gradient_checkpointing:
        detector.set_gradient_checkpointing()
    if device.type == "cuda" and not isinstance(detector.backbone, VisionTransformer):
        detector.to(memory_format=torch.channels_last)  # what cuDNN's convolutions read fastest


def _step(
    tuning: Tuning,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    batch: Batch,
    options: FinetuneOptions,
    session: Session,
    world: World,
) -> float:
    """Take one optimizer step and return the loss before it on this process's share, the penalty included."""
    detector = tuning.detector.train()
    optimizer.zero_grad()
    try:
        loss = accumulate_gradients(model, batch, tuning.penalty, session.device, session.precision, world)
    except torch.OutOfMemoryError:
        # What fits is tried outside, where the exception no longer holds on to the activations.
        loss = None
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise R2MError(f"expected `deterministic: false`, for this backbone: {error}") from error
    if loss is None:
        optimizer.zero_grad()
        raise out_of_memory(
            detector, batch.parts[0], options.pairs, options.accumulate, session.device, session.precision
        )
    nn.utils.clip_grad_norm_([p for p in detector.parameters() if p.requires_grad], options.clip_norm)
    optimizer.step()
    return loss


def _is_late(progress: Progress, patience: int | None) -> bool:
    """Whether `patience` validations have passed since the best."""
    later = sum(row["step"] > progress.best_step for row in progress.history)
    return patience is not None and later >= patience


def _report(name: str, images: int, watch: Stopwatch) -> None:
    """Log how fast a training was, and which part of its time it waited for images."""
    if images:
        rate, share = images / watch.seconds, 100 * watch.waited / watch.seconds
        logger.info("%s: %.1f images a second; %.0f %% of the time waiting for them", name, rate, share)


def _record(progress: Progress, tuning: Tuning, auc: float, name: str) -> None:
    """Add a row to the history, and keep the tensors if no earlier val AUC is as good."""
    if math.isnan(auc):
        raise R2MError(
            f"{name}: logits of val images are not finite after step {progress.step};"
            " try a smaller finetune.lr"
        )
    if auc > progress.best_auc:
        progress.best_auc, progress.best_step = auc, progress.step
        progress.best = {key: tensor.clone() for key, tensor in tuning.state().items()}
    loss = sum(progress.losses) / len(progress.losses)
    progress.history.append({"step": progress.step, "loss": loss, "val_auc": auc})
    progress.losses.clear()
    logger.info("%s: step %d, loss %.4f, val AUC %.4f", name, progress.step, loss, auc)


def _validate(session: Session, generators: Sequence[str], world: World) -> float:
    """Return the mean over `generators` of val AUC."""
    fakes, reals = rows_of(session.inputs, generators, "val")
    values = aucs(fakes, world.predict(session, fakes), reals, world.predict(session, reals))
    return float(np.mean(list(values.values())))
