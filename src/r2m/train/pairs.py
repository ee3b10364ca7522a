"""Which images make up a batch: fakes, each with the real it was made from."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from r2m.errors import R2MError
from r2m.seeding import rng
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


class PairSampler:
    """Batches of `pairs` fakes and as many reals, each epoch a new permutation of the fakes.

    Batch t depends on the seed and on t only, so that a resumed training sees the same batches. A
    fake without a known source is paired with a random real of its domain.
    """

    def __init__(self, fakes: pd.DataFrame, reals: pd.DataFrame, pairs: int, seed: int, name: str) -> None:
        self._fakes, self._reals, self._pairs = fakes, reals, pairs
        self._seed, self._name = seed, name
        self._drawn: tuple[int, np.ndarray] | None = None
        self._source = _places(reals["image_id"], fakes["source_image"])
        self._domain_reals = {
            domain: np.flatnonzero(reals["domain"] == domain).astype(np.int32)
            for domain in sorted(set(reals["domain"]))
        }

    def batch(self, step: int) -> pd.DataFrame:
        """Return the rows of batch `step`, fakes first, then their reals."""
        positions = [self._fake_at(step * self._pairs + i) for i in range(self._pairs)]
        fakes = self._fakes.iloc[positions]
        random = rng(self._seed, "reals", self._name, str(step))
        reals = self._source[positions]
        for i, domain in enumerate(fakes["domain"]):
            if reals[i] < 0:
                reals[i] = random.choice(self._domain_reals[domain])
        return pd.concat([fakes, self._reals.iloc[reals]], ignore_index=True)

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the steps from `start` to `stop` with their batches."""
        for step in range(start, stop):
            yield step, self.batch(step)

    def _fake_at(self, draw: int) -> int:
        epoch, position = divmod(draw, len(self._fakes))
        return int(self._order(epoch)[position])

    def _order(self, epoch: int) -> np.ndarray:
        if self._drawn is None or self._drawn[0] != epoch:
            order = rng(self._seed, "fakes", self._name, str(epoch)).permutation(len(self._fakes))
            self._drawn = (epoch, order)
        return self._drawn[1]


def _places(names: pd.Series, wanted: pd.Series) -> np.ndarray:
    """Return the last place of each of the `wanted` names (n,) among `names`, and -1 for one that is none."""
    places = pd.Series(np.arange(len(names)), index=pd.Index(names))
    places = places[~places.index.duplicated(keep="last")]
    return wanted.map(places).fillna(-1).to_numpy(np.int32)
