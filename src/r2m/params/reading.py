"""Reading of `params.yaml`."""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from r2m.errors import R2MError
from r2m.params.complaints import complaint
from r2m.params.whole import Params


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
