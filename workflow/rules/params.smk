"""params.yaml is read here first: what Snakemake's own reader says of broken YAML names no line."""

from snakemake.exceptions import WorkflowError

from r2m.errors import R2MError
from r2m.options import read_yaml

try:
    read_yaml("params.yaml")
except R2MError as error:
    raise WorkflowError(str(error)) from None
