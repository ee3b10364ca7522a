"""The whole of `params.yaml`: the core, what `snakemake paper` adds to it, and reading."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from r2m.core_params import CoreParams
from r2m.errors import R2MError
from r2m.experiments.registry import ExperimentsOptions, inconsistencies
from r2m.options import complaint, read_yaml


class Params(CoreParams):
    """The whole of params.yaml."""

    experiments: ExperimentsOptions = ExperimentsOptions()

    @model_validator(mode="after")
    def _experiments_fit(self) -> "Params":
        for problem in inconsistencies(self, self.experiments):
            raise ValueError(problem)
        return self


def parse(config: Mapping[str, Any], name: str = "params.yaml") -> Params:
    """Check a configuration.

    Raises:
        R2MError: names the file, the key, what was expected and the nearest valid key.
    """
    try:
        return Params.model_validate(config)
    except ValidationError as error:
        raise R2MError(f"{name}: {complaint(error)}") from error


def load(path: str | Path) -> Params:
    """Read and check params.yaml; raises R2MError like `read_yaml` and `parse`."""
    return parse(read_yaml(path), str(path))
