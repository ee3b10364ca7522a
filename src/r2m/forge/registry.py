"""The built-in forgeries by name. A module is imported only when one of its forgeries is used."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from r2m.data.align import Landmarks
from r2m.data.encode import Image
from r2m.errors import R2MError
from r2m.forge.options import GeneratorOptions
from r2m.options import nearest

MODULES = {
    "swap": "r2m.forge.swap",
    "poisson": "r2m.forge.swap",
    "sbi": "r2m.forge.swap",
    "tps": "r2m.forge.reenact",
    "lip": "r2m.forge.reenact",
    "up": "r2m.forge.synthesize",
    "ae": "r2m.forge.synthesize",
    "dif": "r2m.forge.synthesize",
    "attr": "r2m.forge.edit",
    "inp": "r2m.forge.edit",
}

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
        known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "state"]
        for option in options:
            if option not in known:
                raise R2MError(
                    f"{where}.{option}: forgery {self.name!r} has no such option; expected {', '.join(known)}"
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


def names() -> list[str]:
    """Return the names of all built-in forgeries."""
    return list(MODULES)


def module_of(name: str) -> str:
    """Return the module that holds the forgery `name`.

    Raises:
        R2MError: there is no such forgery.
    """
    if name not in MODULES:
        raise R2MError(f"forge: no forgery {name!r}; expected one of {', '.join(MODULES)}")
    return MODULES[name]


def get(name: str) -> Forgery:
    """Import and return the forgery `name`."""
    importlib.import_module(module_of(name))
    return _registered[name]


def inconsistencies(name: str, generator: GeneratorOptions) -> Iterator[str]:
    """Yield what is wrong with a generator's forgery; each text begins with its key in params.yaml."""
    key = f"generators.{name}"
    if generator.forge is not None and generator.forge not in MODULES:
        yield f"{key}.forge: unknown forgery {generator.forge!r}{nearest(generator.forge, MODULES)}"
    elif generator.forge is not None and generator.options:
        try:
            get(generator.forge).check_options(generator.options, f"{key}.options")
        except R2MError as error:
            yield str(error)
