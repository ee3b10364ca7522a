"""The built-in forgeries by name: all functions of `r2m.forge.forgeries` under the decorator `forgery`."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from r2m.data.align import Landmarks
from r2m.data.detect import Embedding
from r2m.data.images import Image
from r2m.errors import R2MError
from r2m.forge import forgeries
from r2m.forge.options import GeneratorOptions
from r2m.options import complaint, nearest

Function = Callable[..., Image]

# Options of forgeries: the share of what is made, a factor on what is drawn. With 0 nothing is forged.
Opacity = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(gt=0, le=5)]


@dataclass(frozen=True)
class Face:
    """An aligned face: uint8 BGR (S, S, 3), landmarks (5, 2), and its embedding (D,) where it is known."""

    image: Image
    landmarks: Landmarks
    embedding: Embedding = field(default_factory=lambda: np.empty(0, np.float32))


class NoFake(Exception):
    """A forgery could not make a fake of an image; the message is a short reason."""


@dataclass(frozen=True)
class Materials:
    """What a forgery may prepare itself from.

    Attributes:
        reals: the crops of the training reals, which can be gone through once.
        packages: pinned package → the folder with its files.
        pool: pool of a GAN's faces, if the forgery asks for it.
        detector, embedder: ONNX files, if the forgery asks for them.
    """

    reals: Iterable[Image]
    packages: Mapping[str, Path] = field(default_factory=dict)
    pool: Path | None = None
    detector: Path | None = None
    embedder: Path | None = None

    @property
    def face_models(self) -> tuple[Path, Path]:
        """The detector and the embedder of a forgery that asks for them."""
        assert self.detector is not None
        assert self.embedder is not None
        return self.detector, self.embedder


Prepare = Callable[[Materials], Any]


@dataclass(frozen=True)
class Forgery:
    """One way to make a fake of an aligned face.

    `function(face, donor, rng, **options)` takes aligned faces and returns an image (S, S, 3) in uint8 BGR,
    or raises NoFake.
    A forgery with `prepare` gets what that returned as the option `state`; `packages` names the pinned
    packages whose networks it runs. `needs_pool` asks for the pool of a GAN's faces, and so for the face
    detector, which `needs_detector` asks for alone.
    """

    name: str
    family: str
    function: Function
    needs_donor: bool = False
    prepare: Prepare | None = None
    packages: tuple[str, ...] = ()
    needs_pool: bool = False
    needs_detector: bool = False

    @property
    def summary(self) -> str:
        """The first sentence of the forgery's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0].split("; `")[0].rstrip(".")

    @property
    def module(self) -> str:
        """The module that holds the forgery."""
        return self.function.__module__

    def check_options(self, options: Mapping[str, float], where: str) -> None:
        """Raise R2MError at an option that the forgery has not, or a value that its annotation refuses."""
        parameters = inspect.signature(self.function).parameters.values()
        accepted = {
            p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "state"
        }
        for option, value in options.items():
            if option not in accepted:
                known = ", ".join(accepted) or "none"
                raise R2MError(
                    f"{where}.{option}: forgery {self.name!r} has no such option; expected {known}"
                )
            if accepted[option] is inspect.Parameter.empty or isinstance(accepted[option], str):
                continue
            try:
                TypeAdapter(accepted[option]).validate_python(value)
            except ValidationError as error:
                told = complaint(error, f"{where}.{option}")
                raise R2MError(f"{told}" if "(got" in told else f"{told} (got {value!r})") from error


_registered: dict[str, Forgery] = {}


def forgery(
    name: str,
    family: str,
    *,
    needs_donor: bool = False,
    prepare: Prepare | None = None,
    packages: tuple[str, ...] = (),
    needs_pool: bool = False,
    needs_detector: bool = False,
) -> Callable[[Function], Function]:
    """Register the decorated function as the forgery `name`."""

    def register(function: Function) -> Function:
        _registered[name] = Forgery(
            name, family, function, needs_donor, prepare, packages, needs_pool, needs_detector or needs_pool
        )
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


def inconsistencies(name: str, generator: GeneratorOptions, *, has_detector: bool) -> Iterator[str]:
    """Yield what is wrong with a generator's forgery; each text begins with its key in params.yaml."""
    key = f"generators.{name}"
    if generator.forge is None:
        return
    if generator.forge not in names():
        yield f"{key}.forge: unknown forgery {generator.forge!r}{nearest(generator.forge, names())}"
        return
    forgery = get(generator.forge)
    if generator.family != forgery.family:
        yield (
            f"{key}.family: forgery {generator.forge!r} is of the family {forgery.family}; expected that, got"
            f" {generator.family}"
        )
    try:
        forgery.check_options(generator.options, f"{key}.options")
    except R2MError as error:
        yield str(error)
    if forgery.needs_detector and not has_detector:
        yield f"{key}.forge: {generator.forge!r} needs a face detector, and `faces.detector` is `none`"
