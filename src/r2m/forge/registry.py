"""The built-in forgeries by name: all functions of `r2m.forge.forgeries` under the decorator `forgery`."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from r2m.data.align import Landmarks
from r2m.data.images import Image
from r2m.errors import R2MError
from r2m.forge import forgeries
from r2m.forge.options import GeneratorOptions
from r2m.options import nearest

Donor = tuple[Image, Landmarks]
Function = Callable[..., Image]
Fit = Callable[[Iterable[Image]], Any]


@dataclass(frozen=True)
class Forgery:
    """One way to make a fake of an aligned face.

    `function(image, landmarks, donor, rng, **options)` takes and returns uint8 BGR (S, S, 3); `landmarks`
    is (5, 2).
    A forgery with `fit` gets what `fit(images of the training reals)` returned as the option `state`.
    """

    name: str
    family: str
    function: Function
    needs_donor: bool = False
    fit: Fit | None = None

    def check_options(self, options: Iterable[str], where: str) -> None:
        """Raise R2MError at an option that the forgery does not have."""
        parameters = inspect.signature(self.function).parameters.values()
        accepted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "state"]
        for option in options:
            if option not in accepted:
                raise R2MError(
                    f"{where}.{option}: forgery {self.name!r} has no such option;"
                    f" expected {', '.join(accepted)}"
                )


_registered: dict[str, Forgery] = {}


def forgery(
    name: str, family: str, *, needs_donor: bool = False, fit: Fit | None = None
) -> Callable[[Function], Function]:
    """Register the decorated function as the forgery `name`."""

    def register(function: Function) -> Function:
        _registered[name] = Forgery(name, family, function, needs_donor, fit)
        return function

    return register


@cache
def _forgeries() -> dict[str, Forgery]:
    for module in pkgutil.iter_modules(forgeries.__path__):
        importlib.import_module(f"{forgeries.__name__}.{module.name}")
    return _registered


def names() -> list[str]:
    """Return the names of all built-in forgeries."""
    return sorted(_forgeries())


def get(name: str) -> Forgery:
    """Return a forgery.

    Raises:
        R2MError: unknown name; the nearest known one is told.
    """
    if name not in _forgeries():
        raise R2MError(f"unknown forgery {name!r}{nearest(name, names())}")
    return _forgeries()[name]


def module_of(name: str) -> str:
    """Return the module that holds a forgery; raises R2MError like `get`."""
    return get(name).function.__module__


def inconsistencies(name: str, generator: GeneratorOptions) -> Iterator[str]:
    """Yield what is wrong with a generator's forgery; each text begins with its key in params.yaml."""
    key = f"generators.{name}"
    if generator.forge is not None and generator.forge not in names():
        yield f"{key}.forge: unknown forgery {generator.forge!r}{nearest(generator.forge, names())}"
    elif generator.forge is not None and generator.options:
        try:
            get(generator.forge).check_options(generator.options, f"{key}.options")
        except R2MError as error:
            yield str(error)
