"""Commands of r2m called in the process of the tests."""

import click
from click.testing import CliRunner

from r2m.cli import r2m


def invoke(*arguments: object, code: int = 0, command: click.Command = r2m) -> str:
    """Call a command, check its exit code and return its output; errors that it does not tell are raised."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output
