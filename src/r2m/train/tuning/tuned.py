"""A detector whose tuning method decides what is trained of it, and that is a plain one before and after."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from r2m.models.backbone import Detector
from r2m.train.tuning import registry
from r2m.train.tuning.method import Wrapping
from r2m.train.tuning.options import TuningOptions


@dataclass(frozen=True)
class Tuning:
    """A tuning under way; `names` are those that `detector.trainable_state()` has without it."""

    detector: Detector
    names: Sequence[str]
    wrapping: Wrapping

    def penalty(self) -> Tensor | None:
        """Return the scalar that is added to the loss, None for none."""
        return self.wrapping.penalty()

    def state(self) -> dict[str, Tensor]:
        """Return what `trainable_state` of the plain detector with the same outputs would, on the CPU."""
        current = self.detector.trainable_state()
        current |= {name: tensor.detach().cpu() for name, tensor in self.wrapping.dense().items()}
        return {name: current[name] for name in self.names}


@contextmanager
def tuned(detector: Detector, options: TuningOptions, seed: int) -> Iterator[Tuning]:
    """Yield the tuning of `detector`, of which those parameters require gradients that are trained.

    Afterwards `detector` has the layers that it had, with what was trained put in.

    Raises:
        R2MError: options that do not fit the backbone, or a package that the method needs is missing.
    """
    names = list(detector.trainable_state())
    requiring = {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    wrapping = registry.get(options.method).wrap(detector, options, seed)
    try:
        yield Tuning(detector, names, wrapping)
    finally:
        wrapping.unwrap()
        for name, parameter in detector.named_parameters():
            parameter.requires_grad_(name in requiring)
