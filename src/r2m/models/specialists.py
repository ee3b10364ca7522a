"""The base of a merge and models fine-tuned from it, opened under the base's names."""

from pathlib import Path

from r2m.errors import R2MError
from r2m.models.adapters import adapted, is_adapter, require_no_adapter
from r2m.models.weights import WeightsFile, named_like, open_weights


def open_base(path: Path) -> WeightsFile:
    """Open the weights of a whole model; raises R2MError like `open_weights`, and for an adapter."""
    return require_no_adapter(open_weights(path))


def open_like(path: Path, base: WeightsFile, head_prefix: str | None = None) -> WeightsFile:
    """Open weights under the names that `base` has for them (`r2m.models.names.correspondence`).

    A LoRA adapter is opened as the model that it makes of `base`, which must stay open.

    Raises:
        R2MError: a file that cannot be read, names that correspond in several ways, or an adapter that cannot
            be applied.
    """
    weights = open_weights(path)
    if is_adapter(weights.entries):
        return adapted(weights, base)
    return named_like(weights, base, head_prefix)


def check_names(weights: WeightsFile, base: WeightsFile) -> None:
    """Raise R2MError, with a name of each, if no tensor is called as in `base`."""
    if weights.entries.keys() & base.entries.keys():
        return
    raise R2MError(
        f"{weights.path}: no tensor is called as in {base.path}, whatever prefix is put on or taken off: it"
        f" has {min(weights.entries)!r}, the base {min(base.entries)!r}; expected a model of the base's class"
    )
