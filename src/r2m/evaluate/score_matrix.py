"""Scores of all models side by side on the same images or videos, and the test sets among them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from r2m.errors import R2MError
from r2m.evaluate.protocols import EvaluationContext, TestSet, describe, order_test_sets


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores of M models on N units, which are the images or the videos of one split.

    `units` (N rows) has the columns label, generator, domain, identity and video, and sampling where the
    manifests say how frames were sampled. `scores` (M, N) rank the units, the greater the more fake;
    `probabilities` (M, N) are those of being fake.
    """

    units: pd.DataFrame
    models: list[str]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class SetRows:
    """A test set, and the places of its reals (R,) and fakes (F,) among the units."""

    item: TestSet
    reals: NDArray[np.int64]
    fakes: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Places of all units (R + F,), reals first."""
        return np.concatenate([self.reals, self.fakes])

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of `rows`, 1 for fakes."""
        return np.repeat([0, 1], [len(self.reals), len(self.fakes)])


@dataclass(frozen=True)
class People:
    """Who is on each of N units.

    `index` (N,) leads into the P people. `strata` (P,) names the domains that a person occurs in.
    """

    index: NDArray[np.int64]
    strata: list[str]


def real_rows(units: pd.DataFrame) -> Mapping[str, NDArray[np.int64]]:
    """Domain → places of its reals among `units`."""
    labels, domains = units["label"].to_numpy(), units["domain"].to_numpy(object)
    return {
        str(domain): np.flatnonzero((labels == 0) & (domains == domain))
        for domain in sorted(set(domains[labels == 0]))
    }


def set_rows(units: pd.DataFrame, context: EvaluationContext, name: str) -> list[SetRows]:
    """Sets among `units` (label, generator, domain), in the order of the tables.

    Reals that no generator has fakes of (a domain that folder generators do not cover) make no set.

    Raises R2MError, which begins with `name`, for a set without reals.
    """
    reals = real_rows(units)
    places = np.arange(len(units))
    is_fake = units["label"].to_numpy() == 1
    fakes = {
        (str(domain), str(generator)): places[is_fake][rows]
        for (domain, generator), rows in units[is_fake].groupby(["domain", "generator"]).indices.items()
    }
    described = order_test_sets(
        [describe(domain, generator, context) for domain, generator in fakes], context
    )
    for item in described:
        if item.domain not in reals:
            raise R2MError(f"{name}: set {item.name} has fakes but no reals")
    return [SetRows(item, reals[item.domain], fakes[item.domain, item.generator]) for item in described]


def people(units: pd.DataFrame, context: EvaluationContext) -> People:
    """Tell people apart by their identity and the domain that it is of.

    Identities of different domains are different people, whatever they are called. A generator's own reals
    are a domain by its name, but who is known from the training domain keeps that identity, so there they
    are the training domain's people.
    """
    training = next((name for name, known in context.domains.items() if known.role == "train"), None)
    domains = units["domain"].astype(object)
    home = domains.where(domains.isin(list(context.domains)), training or domains)
    keys = pd.MultiIndex.from_arrays([home, units["identity"].astype(object)])
    index, known = keys.factorize(sort=True)
    occurs = pd.Series(domains.to_numpy()).groupby(index).agg(lambda values: "+".join(sorted(set(values))))
    return People(index.astype(np.int64), list(occurs.reindex(range(len(known)))))
