"""Stage options on the command line: JSON text, or `@file.json`, checked by a pydantic model."""

from pathlib import Path
from typing import Any, Generic, TypeVar

import click
from pydantic import BaseModel, ValidationError

from r2m.options import complaint

Model = TypeVar("Model", bound=BaseModel)


class Options(click.ParamType, Generic[Model]):
    """Parameter type that turns JSON into an instance of `model`."""

    name = "JSON"

    def __init__(self, model: type[Model]) -> None:
        self.model = model

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Model:
        """Parse and check `value`; a mistake is a usage error that names the key."""
        if isinstance(value, self.model):
            return value
        try:
            text = Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else value
            return self.model.model_validate_json(text)
        except OSError as error:
            self.fail(f"cannot read {value[1:]}: {error.strerror}", param, ctx)
        except ValidationError as error:
            self.fail(f"{self.model.__name__}: {complaint(error)}", param, ctx)
