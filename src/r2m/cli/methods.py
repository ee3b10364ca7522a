"""`r2m methods`: the merging methods and their options."""

import json
from collections.abc import Iterator
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from r2m.merge.kinds import MATRICES
from r2m.merge.method import Method
from r2m.options import Section

_OTHERS = {
    "alike": "all tensors alike",
    "mean": "other tensors: mean of the specialists",
    "scaled_mean": "other tensors: scaling · mean of the task vectors",
    "base": "other tensors: as in the base",
}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List merging methods: what they do, their options and defaults, and whether they need data."""
    from r2m.merge import registry

    methods = [registry.get(name) for name in names or registry.names()]
    if as_json:
        described = {
            method.name: {
                "title": method.title,
                "citation": method.citation,
                "needs_data": method.statistics,
                "takes_weights": not method.unweighted,
                "kinds": sorted(method.kinds) if method.others != "alike" else None,
                "others": method.others,
                "options": {key: default for key, default, _ in options(method.options)},
            }
            for method in methods
        }
        click.echo(json.dumps(described, indent=2))
        return
    for method in methods:
        click.echo(f"{method.name}: {method.title}")
        click.echo(f"    {method.citation}")
        click.echo(f"    {treatment(method)}")
        click.echo(f"    data: {method.statistics or 'none'}")
        if method.unweighted:
            click.echo(f"    takes no --weight: {method.unweighted}")
        for key, default, text in options(method.options):
            click.echo(f"    --set {key}={json.dumps(default)}" + (f"  {text}" if text else ""))
        click.echo()


def treatment(method: Method) -> str:
    """Return what becomes of tensors that are matrices, and of others."""
    kinds = " and ".join(sorted(method.kinds))
    if method.others != "alike":
        return f"{kinds}; {_OTHERS[method.others]}"
    # A method that names kinds and yet merges all of them does something more with these.
    return _OTHERS["alike"] if method.kinds == MATRICES else f"{kinds} by singular vectors; others whole"


def options(section: type[Section], prefix: str = "", value: Any = None) -> Iterator[tuple[str, Any, str]]:
    """Yield the dotted name, the default and the description of every option."""
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True) if value is None else getattr(value, name)
        if isinstance(default, BaseModel):
            yield from options(type(default), f"{prefix}{name}.", default)  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}", default, _description(field)


def _description(field: FieldInfo) -> str:
    return field.description or ""
