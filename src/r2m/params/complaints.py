"""What pydantic complains about, as one key and one text."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

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
