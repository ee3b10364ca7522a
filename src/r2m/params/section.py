"""What all sections of `params.yaml` share: known keys only, and the types of their values."""

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


def nearest(word: str, known: Any) -> str:
    """Return "; did you mean …?" or, where nothing is near, "; expected one of …"."""
    known = sorted(known)
    if not known:
        return "; there are none"
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; expected one of {', '.join(known)}"
