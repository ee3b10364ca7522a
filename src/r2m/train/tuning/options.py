"""Options of tuning: a method by its name, and the options that it has."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, GetJsonSchemaHandler, ModelWrapValidatorHandler, model_validator
from pydantic_core import CoreSchema

from r2m.options import Section, nearest
from r2m.train.tuning import registry


class TuningOptions(Section):
    """What is trained of the part that is fine-tuned: a method's name, or a mapping with its options too.

    Checking gives an instance of the options of that method, which are a subclass.
    """

    method: str = Field(description="one of the tuning methods")

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_method(cls, value: Any, handler: ModelWrapValidatorHandler["TuningOptions"]) -> Any:
        if cls is not TuningOptions or isinstance(value, TuningOptions):
            return handler(value)
        if isinstance(value, str):
            value = {"method": value}
        if not isinstance(value, Mapping) or "method" not in value:
            raise ValueError(f"expected a method, alone or as `method`: {', '.join(registry.names())}")
        name = value["method"]
        if name not in registry.names():
            raise ValueError(f"unknown tuning method {name!r}{nearest(str(name), registry.names())}")
        return registry.get(name).options.model_validate(value)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        own = handler(schema)
        if cls is not TuningOptions:
            return own
        forms = []
        for name in registry.names():
            form = registry.get(name).options.model_json_schema()
            form["properties"]["method"] = {"const": name, "title": "Method", "type": "string"}
            forms.append(form)
        names = {"enum": list(registry.names()), "type": "string"}
        return {"anyOf": [names, *forms], "title": own.get("title", cls.__name__)}
