"""The base of a merge and models fine-tuned from it, opened under the base's names."""

from pathlib import Path

from r2m.errors import R2MError
from r2m.models.adapters import is_adapter, require_no_adapter
from r2m.models.clip_conversion import adapted_in_convention, in_convention_of, with_positions_of
from r2m.models.weights import WeightsFile, named_like, open_weights


def open_base(path: Path) -> WeightsFile:
    """Open the weights of a whole model; raises R2MError like `open_weights`, and for an adapter."""
    return require_no_adapter(open_weights(path))


def open_like(
    path: Path, base: WeightsFile, head_prefix: str | None = None, resample_positions: bool = False
) -> WeightsFile:
    """Open weights under the names that `base` has for them (`r2m.models.names.correspondence`).

    A CLIP vision transformer may be called as in another library (`r2m.models.clip_names`). A LoRA adapter is
    opened as the model that it makes of `base`, which must stay open.

    Raises:
        R2MError: a file that cannot be read, names that correspond in several ways, an adapter that cannot be
            applied, or a CLIP's position embedding of another size, unless `resample_positions`.
    """
    weights = open_weights(path)
    if is_adapter(weights.entries):
        return adapted_in_convention(weights, base)
    converted = in_convention_of(weights, base, head_prefix)
    return with_positions_of(named_like(converted, base, head_prefix), base, resample_positions)


def check_names(weights: WeightsFile, base: WeightsFile) -> None:
    """Raise R2MError, with a name of each, if no tensor is called as in `base`."""
    if weights.entries.keys() & base.entries.keys():
        return
    raise R2MError(
        f"{weights.path}: no tensor is called as in {base.path}, whatever prefix is put on or taken off: it"
        f" has {min(weights.entries)!r}, the base {min(base.entries)!r}; expected a model of the base's class"
    )
