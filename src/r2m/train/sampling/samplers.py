"""How batches are drawn: the samplers that `finetune.sampling` names.

A further one is one more class here, and its entry in `SAMPLERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r2m.seeding import rng
from r2m.train.sampling.rounds import Rounds

if TYPE_CHECKING:
    import pandas as pd

Numbers = NDArray[np.int64]


@dataclass(eq=False)
class Sampler(ABC):
    """Batches of `pairs` fakes and as many reals, with at most `frames` of every video in an epoch.

    Batch t depends on the seed, the training's name and t only, so that a resumed training sees the same
    batches. An epoch has as many fakes as there are, or as `frames` leaves.
    """

    fakes: pd.DataFrame
    reals: pd.DataFrame
    pairs: int
    seed: int
    name: str
    frames: int | None = None

    @abstractmethod
    def __post_init__(self) -> None:
        """Prepare what batches are drawn from."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """How many fakes an epoch has."""

    @abstractmethod
    def _drawn(self, step: int) -> tuple[Numbers, Numbers]:
        """Return the numbers of the fakes `(pairs,)` and of the reals `(pairs,)` of batch `step`."""

    def batch(self, step: int) -> pd.DataFrame:
        """Return the rows of batch `step`, fakes first, then reals."""
        import pandas as pd

        fakes, reals = self._drawn(step)
        return pd.concat([self.fakes.iloc[fakes], self.reals.iloc[reals]], ignore_index=True)

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the steps from `start` to `stop` with their batches."""
        for step in range(start, stop):
            yield step, self.batch(step)

    def _draws(self, step: int) -> Numbers:
        """Return how many fakes were drawn before each of a batch's."""
        return np.arange(step * self.pairs, (step + 1) * self.pairs)


class PairSampler(Sampler):
    """Each fake with the real that it was made from, and each epoch a new permutation of the fakes.

    A fake without a known source is paired with a random real of its domain.
    """

    def __post_init__(self) -> None:
        self._rounds = Rounds(self.fakes, self.frames, self.seed, "fakes", self.name)
        self._source = _places(self.reals["image_id"], self.fakes["source_image"])
        self._domain_reals = {
            domain: np.flatnonzero(self.reals["domain"] == domain).astype(np.int32)
            for domain in sorted(set(self.reals["domain"]))
        }

    @property
    def epoch(self) -> int:
        """How many fakes an epoch has."""
        return len(self._rounds)

    def _drawn(self, step: int) -> tuple[Numbers, Numbers]:
        fakes = self._rounds.at(self._draws(step))
        random = rng(self.seed, "reals", self.name, str(step))
        reals = self._source[fakes].astype(np.int64)
        for i in np.flatnonzero(reals < 0):
            domain = self.fakes["domain"].iloc[fakes[i]]
            reals[i] = random.choice(self._domain_reals[domain])
        return fakes, reals


class BalancedSampler(Sampler):
    """Fakes and reals drawn by themselves: every generator equally often, whatever its number of fakes.

    Generators take turns, and go through their fakes in rounds of their own. As often as a generator's fakes
    come reals of the domains that it has fakes in, so that the domain does not tell the class.
    """

    def __post_init__(self) -> None:
        def stratum(frame: pd.DataFrame, rows: Numbers, *names: str) -> _Stratum:
            return _Stratum(frame, rows, self.frames, self.seed, *names)

        groups = sorted(self.fakes.groupby("generator").indices.items())
        members = {str(generator): np.asarray(rows) for generator, rows in groups}
        self._fakes_of = [
            stratum(self.fakes, rows, "fakes", self.name, generator) for generator, rows in members.items()
        ]
        # Generators of the same domains share their reals, and take turns with these, too.
        domains = [tuple(sorted(set(self.fakes["domain"].iloc[rows]))) for rows in members.values()]
        self._reals_of = {
            own: stratum(self.reals, np.flatnonzero(self.reals["domain"].isin(own)), "reals", self.name, *own)
            for own in dict.fromkeys(domains)
        }
        self._turns = [
            (own, domains[:number].count(own), domains.count(own)) for number, own in enumerate(domains)
        ]

    @property
    def epoch(self) -> int:
        """How many fakes an epoch has."""
        return sum(len(stratum.rounds) for stratum in self._fakes_of)

    def _drawn(self, step: int) -> tuple[Numbers, Numbers]:
        fakes, reals = np.empty((2, self.pairs), np.int64)
        cycles, turns = np.divmod(self._draws(step), len(self._fakes_of))
        for number, (domains, turn, sharing) in enumerate(self._turns):
            is_turn = turns == number
            fakes[is_turn] = self._fakes_of[number].at(cycles[is_turn])
            reals[is_turn] = self._reals_of[domains].at(cycles[is_turn] * sharing + turn)
        return fakes, reals


class _Stratum:
    """A part of all rows that has rounds of its own."""

    def __init__(
        self, frame: pd.DataFrame, rows: Numbers, frames: int | None, seed: int, *names: str
    ) -> None:
        self._rows = rows
        self.rounds = Rounds(frame.iloc[rows], frames, seed, *names)

    def at(self, draws: Numbers) -> Numbers:
        """Return the rows, as numbers among all, at some places of the stream."""
        return self._rows[self.rounds.at(draws)]


def _places(names: pd.Series, wanted: pd.Series) -> NDArray[np.int32]:
    """Return the last place of each of the `wanted` names (n,) among `names`, and -1 for one that is none."""
    import pandas as pd

    places = pd.Series(np.arange(len(names)), index=pd.Index(names))
    places = places[~places.index.duplicated(keep="last")]
    return wanted.map(places).fillna(-1).to_numpy(np.int32)


SAMPLERS: dict[str, type[Sampler]] = {"pairs": PairSampler, "balanced": BalancedSampler}
