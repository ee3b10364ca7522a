"""How long a training is: from epochs to steps, and beside trainings on other sets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from r2m.train.options import FinetuneOptions
from r2m.train.sampling.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    import pandas as pd


def sampler_of(
    options: FinetuneOptions, fakes: pd.DataFrame, reals: pd.DataFrame, *, name: str, seed: int
) -> Sampler:
    """Return the sampler of the training called `name` on `fakes` and `reals`."""
    sampler = SAMPLERS[options.sampling]
    return sampler(fakes, reals, options.pairs, seed, name, options.frames_per_video)


def total_steps(options: FinetuneOptions, epoch: int) -> int:
    """Return how many steps a training takes whose sampler has `epoch` fakes in an epoch."""
    if options.steps is not None:
        return options.steps
    assert options.epochs is not None
    # Rounded, since 1.1 times 10 is a little more than 11.
    return max(1, math.ceil(round(options.epochs * epoch, 6) / options.pairs))


def lengthened(options: FinetuneOptions, factor: float, sets: int) -> FinetuneOptions:
    """Return the options of a training on the fakes of `sets` specialists, `factor` times as long as one.

    An epoch of all their fakes takes as many steps as one of each specialist together. So with epochs, it is
    `factor` times as long as their mean.
    """
    if options.steps is not None:
        return options.model_copy(update={"steps": max(1, round(options.steps * factor))})
    assert options.epochs is not None
    return options.model_copy(update={"epochs": options.epochs * factor / sets})
