"""Streams of rows that never end: one round after the other, each in an order of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r2m.seeding import rng

if TYPE_CHECKING:
    import pandas as pd

# What a video is known by, among fakes or among reals.
VIDEO = ["generator", "domain", "video"]


def videos_of(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Return the number `(n,)` of every row's video; an image without a video has one of its own."""
    named = rows["video"].notna().to_numpy()
    numbers = np.empty(len(rows), np.int64)
    numbers[named] = rows.loc[named, VIDEO].groupby(VIDEO, sort=False).ngroup().to_numpy()
    numbers[~named] = np.arange(len(rows) - named.sum()) + numbers[named].max(initial=-1) + 1
    return numbers


class Rounds:
    """A stream of the numbers of rows: round after round, each a new permutation.

    With `frames`, a round holds so many rows of each video, and all of a shorter one. The next round goes on
    with other frames, until all of a video had their turn. Round r depends on the seed, the names and r only.
    """

    def __init__(self, rows: pd.DataFrame, frames: int | None, seed: int, *names: str) -> None:
        self._seed, self._names = seed, names
        self._frames = None if frames is None else _Frames(videos_of(rows), frames, seed, *names)
        self._length = len(rows) if self._frames is None else self._frames.length
        self._drawn: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Return how many rows a round has."""
        return self._length

    def at(self, draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows at some places `(n,)` of the stream."""
        numbers, places = np.divmod(draws, self._length)
        rows = np.empty(len(draws), np.int64)
        for number in np.unique(numbers):
            is_of_round = numbers == number
            rows[is_of_round] = self._round(int(number))[places[is_of_round]]
        return rows

    def _round(self, number: int) -> NDArray[np.int64]:
        if self._drawn is None or self._drawn[0] != number:
            order = rng(self._seed, *self._names, str(number)).permutation(self._length)
            chosen = order if self._frames is None else self._frames.of_round(number)[order]
            self._drawn = (number, chosen)
        return self._drawn[1]


class _Frames:
    """So many frames of every video a round, from a random order that stays the same and is gone through."""

    def __init__(self, videos: NDArray[np.int64], frames: int, seed: int, *names: str) -> None:
        shuffled = rng(seed, "frames", *names).permutation(len(videos))
        self._order = shuffled[np.argsort(videos[shuffled], kind="stable")]
        self._sizes = np.bincount(videos)
        self._starts = self._sizes.cumsum() - self._sizes
        self._frames = frames
        self._counts = np.minimum(self._sizes, frames)
        self.length = int(self._counts.sum())

    def of_round(self, number: int) -> NDArray[np.int64]:
        """Return the rows of a round, video by video."""
        videos = np.repeat(np.arange(len(self._sizes)), self._counts)
        place = np.arange(self.length) - np.repeat(self._counts.cumsum() - self._counts, self._counts)
        turned = (number * self._frames + place) % self._sizes[videos]
        return self._order[self._starts[videos] + turned]
