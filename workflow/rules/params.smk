"""The config is params.yaml as r2m reads it, in YAML 1.2; what `--config` and `--configfile` say goes before."""

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

from r2m.errors import R2MError
from r2m.options import read_yaml

try:
    content = read_yaml("params.yaml")
except R2MError as error:
    raise WorkflowError(str(error)) from None
update_config(content, config)
config = content
