"""The state dict inside a training checkpoint, whatever a training script wrapped around it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from r2m.errors import R2MError
from r2m.models.names import check_name

# What training scripts call the weights of the model, the more specific names first.
WEIGHTS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model_weights",
    "model",
    "net_state_dict",
    "net",
    "network",
    "module",
    "params",
    "weights",
)
# Parts of one model, where they are saved side by side.
BODIES = ("backbone", "encoder", "decoder", "trunk", "body", "stem", "neck", "features", "visual")
PARTS = frozenset(
    [*BODIES, "vision_model", "text_model", "projection", "projector", "head", "heads", "fc", "classifier"]
)
# Part of the names of moving averages of them: state_dict_ema, model_ema, params_ema, swa_model, …
_AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?)(_|$)", re.IGNORECASE)
# Parts of names of what is no weights, though it may hold tensors.
_STATE_OF_TRAINING = (
    "optim",
    "sched",
    "scaler",
    "rng",
    "callback",
    "loop",
    "hparam",
    "hyper_param",
    "config",
)


def unwrapped(content: Any, path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Return the weights in `content`, unpickled from `path`: names, dotted where modules nest, → tensors.

    The mapping under a usual name (`WEIGHTS`) is taken, or the only one with tensors; of plain and averaged
    weights (EMA) the plain. Parts of one model side by side (`PARTS`, modules of modules) are one state dict.
    `notes` tell what was taken and what beside it was left out. Optimizers and the like are passed over.

    Raises:
        R2MError: no mapping, no tensors, several models, a name that cannot be written, or weights that are
            no tensors.
    """
    if not isinstance(content, Mapping):
        raise R2MError(f"{path}: expected a mapping of names to tensors, got {type(content).__name__}")
    inner = {key: value for key, value in content.items() if _is_weights(key, value)}
    direct = [key for key, value in content.items() if isinstance(value, Tensor)]
    chosen = _wrapper(inner, direct, path)
    if chosen is not None:
        notes.append(f"weights taken from its key {chosen!r}{_left_out(inner, direct, chosen)}")
        return unwrapped(content[chosen], path, notes)
    parts = [key for key in inner if not _is_averaged(key)]
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    for key, value in content.items():
        for name, leaf in _leaves(key, value) if key in parts else [(key, value)]:
            if isinstance(leaf, Tensor):
                if check_name(name, path) in tensors:
                    raise R2MError(f"{path}: two tensors are called {name!r}")
                tensors[str(name)] = leaf
            elif _may_be_weights(name, leaf):
                raise R2MError(f"{path}: {name!r} is a {type(leaf).__name__}; expected a tensor")
            elif isinstance(leaf, int | float | complex) and not isinstance(leaf, bool):
                others.append(str(name))
        if key not in parts and isinstance(value, Mapping) and _holds_tensors(value):
            others.append(str(key))
    if not tensors:
        raise R2MError(f"{path}: holds no tensors; its keys are {sorted(map(str, content))[:8]}")
    if parts:
        notes.append(f"its mappings are taken for parts of one model: {_listed(parts)}")
    if others:
        notes.append(f"left out: {_listed(others)}")
    return tensors


def _wrapper(inner: Mapping[Any, Any], direct: list[Any], path: Path) -> Any | None:
    """Return the key of the mapping that holds all weights, None if they are the whole content.

    `inner` are the mappings with tensors, `direct` the keys of tensors beside them.
    """
    usual = [key for key in WEIGHTS if key in inner]
    if len(usual) == 1 and PARTS.isdisjoint(inner):
        return usual[0]
    if not inner or any("." in str(key) for key in direct):
        return None
    averaged = [key for key in inner if _is_averaged(key)]
    models = [key for key in inner if key not in averaged] or averaged
    if len(models) == 1:
        return models[0]
    if len(usual) < 2 and all(key in PARTS or key in usual or _is_module(inner[key]) for key in models):
        return None
    names = " and ".join(repr(key) for key in models[:3])
    raise R2MError(
        f"{path}: holds several mappings of tensors, {names}; save the one to merge alone:"
        f" torch.save(checkpoint[{models[0]!r}], NEW)"
    )


def _left_out(inner: Mapping[Any, Any], direct: list[Any], chosen: Any) -> str:
    """Return what a note says of the tensors beside the key `chosen`."""
    averaged = [key for key in inner if key != chosen and _is_averaged(key)]
    others = [key for key in (*inner, *direct) if key != chosen and key not in averaged]
    text = f", not the averaged ones under {_listed(averaged)}" if averaged else ""
    return f"{text}; left out: {_listed(others)}" if others else text


def _listed(names: list[Any]) -> str:
    return ", ".join(map(str, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _is_averaged(key: Any) -> bool:
    return isinstance(key, str) and _AVERAGED.search(key) is not None


def _is_weights(key: Any, value: Any) -> bool:
    """Whether `value` maps to tensors, and is neither a state of training nor a module's extra state."""
    if not isinstance(value, Mapping) or value.keys() >= {"state", "param_groups"}:
        return False
    name = str(key).lower()
    if any(word in name for word in _STATE_OF_TRAINING) or name.endswith("_extra_state"):
        return False
    return _holds_tensors(value)


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(leaf, Tensor) for _, leaf in _leaves("", value))


def _is_module(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping nests by modules, so that no name in it is dotted."""
    return all(
        "." not in str(key) and (_is_module(content) if isinstance(content, Mapping) else True)
        for key, content in value.items()
    )


def _leaves(key: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what a value holds that is no mapping, with dotted names."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for inner, content in value.items():
        yield from _leaves(f"{key}.{inner}" if isinstance(inner, str) else inner, content)


def _may_be_weights(name: Any, value: Any) -> bool:
    """Whether no tensor, but a sequence of tensors, or of numbers under the name of a parameter."""
    if not isinstance(value, list | tuple):
        return False
    if any(isinstance(content, Tensor) for content in value):
        return True
    return "." in str(name) and any(isinstance(content, int | float | list | tuple) for content in value)
