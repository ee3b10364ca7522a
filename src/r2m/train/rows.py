"""Which images a training reads: fakes of its generators, and the reals of the same domains."""

import logging
from collections.abc import Sequence

import pandas as pd

from r2m.errors import R2MError
from r2m.trunk.inputs import Inputs

logger = logging.getLogger(__name__)


def rows_of(inputs: Inputs, generators: Sequence[str], split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the fakes of `generators` and the reals of the same domains in one split.

    Raises:
        R2MError: a generator has no fakes there, or its domain no reals.
    """
    fakes = inputs.select(generator=list(generators), label=1, split=split)
    for generator in generators:
        if not (fakes["generator"] == generator).any():
            raise R2MError(f"generator {generator}: no fakes in the split {split!r} of its manifest")
    # Fakes in test domains stand in the split `test` only, but a generator may bring a domain of its own.
    reals = inputs.select(label=0, split=split, domain=sorted(set(fakes["domain"])))
    for domain in sorted(set(fakes["domain"]) - set(reals["domain"])):
        raise R2MError(f"domain {domain}: no reals in the split {split!r}, and fakes that need them")
    logger.info("%s: %d fakes of %s, %d reals", split, len(fakes), ", ".join(generators), len(reals))
    return fakes.reset_index(drop=True), reals.reset_index(drop=True)
