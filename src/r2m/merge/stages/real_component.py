"""Stage `r2m real-component`: what the task vectors share."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from r2m.errors import R2MError
from r2m.files import write_text
from r2m.merge import real
from r2m.merge.blocks import Blocks, MemorySource
from r2m.merge.gram import grams
from r2m.merge.running import averages, trained
from r2m.merge.stages.inputs import as_json, hashes, read_chosen, read_same_base
from r2m.models import checkpoint


def write_real_component(tune: Path, task_vectors: Mapping[str, Path], out: Path, report: Path) -> None:
    """Write the Real component and a report of norms, cosines and each specialist's part in it.

    Raises:
        R2MError: the variant is not R²M, or the task vectors do not fit together.
    """
    chosen = read_chosen(tune)
    options = chosen.r2m().real
    tensors, metadata = read_same_base(task_vectors)
    everything = Blocks(MemorySource(tensors))
    blocks = trained(everything)
    component, described = real.real_component(blocks, grams(blocks), options)
    component = replace(component, running=averages(everything))
    provenance = {
        "base_hash": next(iter(metadata.values()))["base_hash"],
        "variant": chosen.variant,
        "options": options.model_dump(exclude_none=True),
        "inputs": hashes(tensors),
        "report": described,
    }
    checkpoint.save(out, real.to_tensors(component), provenance)
    write_text(report, as_json({"variant": chosen.variant, "options": provenance["options"], **described}))


def read_real_component(path: Path) -> tuple[real.RealComponent, dict[str, str]]:
    """Read what `write_real_component` wrote: the component and the file's metadata.

    Raises:
        R2MError: missing, corrupt, or another kind of file.
    """
    tensors, metadata = checkpoint.load(path)
    if "inputs" not in metadata or "report" not in metadata:
        raise R2MError(f"{path}: expected the output of `r2m real-component`")
    names = tuple(json.loads(metadata["report"])["specialists"])
    return real.from_tensors(tensors, names), metadata
