"""`r2m schema`: the JSON schema of params.yaml."""

import click
import yaml


@click.command()
def command() -> None:
    """Print the schema that workflow/schemas/params.schema.yaml holds."""
    from r2m.params import Params

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    click.echo("# Made by `r2m schema` from the models in src/r2m/params.")
    click.echo(yaml.safe_dump(schema, sort_keys=False, width=110), nl=False)
