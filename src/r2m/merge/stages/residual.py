"""Stage `r2m residual`: one specialist's truncated residual beside the Real component."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from r2m.errors import R2MError
from r2m.files import write_text
from r2m.merge import real, residual
from r2m.merge.stages.inputs import as_json, hashes, read_chosen, read_same_base
from r2m.merge.stages.real_component import read_real_component
from r2m.merge.svd import singular_values
from r2m.merge.tensors import as_matrix
from r2m.models import checkpoint


def write_residual(
    tune: Path, real_file: Path, task_vectors: Mapping[str, Path], specialist: str, out: Path, report: Path
) -> None:
    """Write the residual of `specialist`, and a report of ranks, energies and all singular values.

    Raises:
        R2MError: the variant is not R²M, the specialist has no task vector here, or the Real component was
            made of other task vectors.
    """
    chosen = read_chosen(tune)
    options = chosen.r2m().residual
    if specialist not in task_vectors:
        raise R2MError(f"--specialist {specialist}: expected one of {', '.join(sorted(task_vectors))}")
    component, metadata = read_real_component(real_file)
    tensors, _ = read_same_base(task_vectors, metadata["base_hash"])
    inputs = hashes(tensors)
    if json.loads(metadata["inputs"]) != inputs:
        raise R2MError(f"{real_file}: was made of other task vectors than those given; make it again")
    result = residual.fake_residual(component, tensors, specialist, options)
    others = (residual.block_norm(one) ** 2 for key, one in result.blocks.items() if key not in result.values)
    described = residual.describe(result.truncations, math.fsum(others))
    provenance = {
        "base_hash": metadata["base_hash"],
        "variant": chosen.variant,
        "specialist": specialist,
        "options": options.model_dump(exclude_none=True),
        "inputs": inputs,
        "real_hash": checkpoint.digest(real.to_tensors(component)),
        "report": described,
    }
    checkpoint.save(out, residual.to_tensors(result), provenance)
    spectra = {
        key: {
            **described["matrices"][key],
            "task_vector_values": _task_vector_values(tensors[specialist], key, one.shape),
            "residual_values": _rounded(result.values[key]),
        }
        for key, one in result.truncations.items()
    }
    header = {"variant": chosen.variant, "specialist": specialist, "options": provenance["options"]}
    write_text(report, as_json({**header, **described, "matrices": spectra}))


def _task_vector_values(task_vector: Mapping[str, Tensor], key: str, shape: tuple[int, ...]) -> list[float]:
    if key not in task_vector:
        return [0.0] * min(shape)
    return _rounded(singular_values(as_matrix(task_vector[key])))


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.7g}") for value in values.tolist()]
