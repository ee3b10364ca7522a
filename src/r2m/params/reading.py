"""Reading of `params.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r2m.errors import R2MError
from r2m.options import complaint, read_yaml
from r2m.params.whole import Params


def parse(config: Mapping[str, Any], name: str = "params.yaml") -> Params:
    """Check a configuration.

    Raises:
        R2MError: names the file, the key, what was expected and the nearest valid key.
    """
    try:
        return Params.model_validate(config)
    except ValidationError as error:
        # Of a union's alternatives, the deepest complaint is about the one that was meant.
        raise R2MError(": ".join(filter(None, [name, *complaint(error)]))) from error


def load(path: str | Path) -> Params:
    """Read and check params.yaml; raises R2MError like `read_yaml` and `parse`."""
    return parse(read_yaml(path), str(path))
