"""What the stages of a merge read: the chosen options of a variant, and task vectors of one base."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from r2m.errors import R2MError
from r2m.merge import registry
from r2m.merge.method import Method
from r2m.merge.options import R2M
from r2m.models import checkpoint
from r2m.options import Section, complaint


@dataclass(frozen=True)
class Chosen:
    """A merge variant with the options, and the threshold of probability, that tuning chose for it."""

    variant: str
    method: Method
    head: str
    options: Section
    threshold: float | None = None

    def r2m(self) -> R2M:
        """Return the options, which must be those of R²M; raises R2MError otherwise."""
        if not isinstance(self.options, R2M):
            raise R2MError(f"variant {self.variant!r}: expected the method r2m, got {self.method.name}")
        return self.options


def read_chosen(path: Path) -> Chosen:
    """Read results/tune/<variant>/chosen.json.

    Raises:
        R2MError: missing, not JSON, or without valid `variant`, `method`, `head` and `options`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = {key: content[key] for key in ("variant", "method", "head", "options")}
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise R2MError(f"{path}: expected JSON with variant, method, head and options ({error})") from error
    method = registry.get(fields["method"])
    try:
        options = method.options.model_validate(fields["options"])
    except ValidationError as error:
        raise R2MError(f"{path}: {complaint(error, 'options')}") from error
    return Chosen(fields["variant"], method, fields["head"], options, content.get("threshold"))


def read_same_base(
    files: Mapping[str, Path], base_hash: str | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, str]]]:
    """Read tensors and metadata of several files by name, checking that they come from one base.

    Raises:
        R2MError: a file is missing or corrupt, or was made from another base (None: than the first file).
    """
    tensors, metadata = {}, {}
    for name, path in files.items():
        tensors[name], metadata[name] = checkpoint.load(path)
        found = metadata[name].get("base_hash")
        base_hash = base_hash or found
        if found is None or found != base_hash:
            raise R2MError(f"{path}: made from base {found}, expected {base_hash}")
    return tensors, metadata


def hashes(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
    """Return the content hash of every checkpoint."""
    return {name: checkpoint.digest(one) for name, one in tensors.items()}


def as_json(report: Mapping[str, Any]) -> str:
    """Return a report as indented JSON text."""
    return json.dumps(report, indent=2, allow_nan=False) + "\n"
