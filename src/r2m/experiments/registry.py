"""Experiments by name: every other module of this package declares one, called `EXPERIMENT`."""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from r2m import experiments
from r2m.declared import declared, names_in
from r2m.errors import R2MError
from r2m.experiments.experiment import Experiment, ExperimentOptions
from r2m.options import Section, nearest

if TYPE_CHECKING:
    from r2m.core_params import CoreParams

_OWN = {"experiment", "registry", "stages"}


@cache
def _experiments() -> dict[str, Experiment]:
    every: list[Experiment] = [
        declared(experiments, name, "EXPERIMENT", "experiment")
        for name in names_in(experiments)
        if name not in _OWN
    ]
    ordered = sorted(every, key=lambda experiment: (experiment.order, experiment.name))
    return {experiment.name: experiment for experiment in ordered}


def names() -> tuple[str, ...]:
    """Return the names of all experiments in the order of display."""
    return tuple(_experiments())


def get(name: str) -> Experiment:
    """Return an experiment.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    if name not in _experiments():
        raise R2MError(f"unknown experiment {name!r}{nearest(name, names())}")
    return _experiments()[name]


class _Options(Section):
    """What `snakemake paper` adds to the default run; each experiment can be switched on by itself."""

    def of(self, name: str) -> ExperimentOptions:
        """Return the options of one experiment."""
        options: ExperimentOptions = getattr(self, name)
        return options

    @property
    def enabled(self) -> list[str]:
        """Names of the experiments that are on."""
        return [name for name in names() if self.of(name).enabled]


if TYPE_CHECKING:
    ExperimentsOptions = _Options
else:
    _FIELDS: dict[str, Any] = {name: (get(name).options, get(name).options()) for name in names()}
    ExperimentsOptions = create_model(
        "ExperimentsOptions", __base__=_Options, __doc__=_Options.__doc__, **_FIELDS
    )


def inconsistencies(params: "CoreParams", options: ExperimentsOptions) -> Iterator[str]:
    """Yield what is wrong with the experiments beside the rest of params.yaml."""
    for name in names():
        yield from get(name).inconsistencies(params, options.of(name))
