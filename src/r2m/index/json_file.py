"""Lists of data sets in JSON, as their authors wrote them."""

import json
from pathlib import Path
from typing import Any

from r2m.errors import R2MError


def read_json(path: Path) -> Any:
    """Return the content of a file; raises R2MError where it is no JSON, or nested too deep to be a list."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise R2MError(f"{path}: not valid JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return an object of videos; raises R2MError like `read_json`, and where it is something else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise R2MError(f"{path}: expected an object of videos, got {type(content).__name__}")
    return content
