"""`r2m schema`: the JSON schema of params.yaml."""

import click

from r2m.options import as_yaml


@click.command()
def command() -> None:
    """Print the schema that workflow/schemas/params.schema.yaml holds."""
    from r2m.params import Params

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    click.echo("# Made by `r2m schema` from the models behind src/r2m/params.py.")
    click.echo(as_yaml(schema), nl=False)
