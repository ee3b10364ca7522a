"""Stage `r2m merge-variant`: the merged model, backbone and head, in one file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from r2m.errors import R2MError
from r2m.files import write_text
from r2m.merge import merging, residual
from r2m.merge.aggregate import aggregate
from r2m.merge.heads import Average, merge_heads
from r2m.merge.options import R2M
from r2m.merge.stages.inputs import Chosen, as_json, hashes, read_chosen, read_same_base
from r2m.merge.stages.real_component import read_real_component
from r2m.merge.stages.task_vector import HEAD
from r2m.merge.task_vector import apply
from r2m.merge.tensors import Tensors, norm
from r2m.models import checkpoint
from r2m.models.config import head_average, inherited

Update = tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]


def write_merged(
    tune: Path,
    base: Path,
    task_vectors: Mapping[str, Path],
    real_file: Path | None,
    residuals: Mapping[str, Path],
    statistics: Mapping[str, Path],
    heads: Mapping[str, Path],
    initial_head: Path | None,
    out: Path,
    report: Path,
) -> None:
    """Write the base with a variant's update and head, and a report.

    R²M takes the Real component and the residuals, every other method the task vectors, and some take
    statistics of the specialists' training data as well.

    Raises:
        R2MError: inputs that the method does not take, or that do not fit together.
    """
    chosen = read_chosen(tune)
    base_tensors, base_metadata = checkpoint.load(base)
    base_hash = checkpoint.digest(base_tensors)
    if isinstance(chosen.options, R2M):
        if real_file is None or not residuals or task_vectors:
            raise R2MError(f"variant {chosen.variant!r}: r2m takes --real and --residual, no --task-vector")
        update, described, inputs = _r2m_update(chosen.options, base_hash, real_file, residuals)
    else:
        if real_file is not None or residuals or not task_vectors:
            raise R2MError(f"variant {chosen.variant!r}: {chosen.method.name} takes --task-vector only")
        method = chosen.method
        if bool(statistics) != (method.statistics is not None):
            wanted = (
                f"--statistics of every specialist: {method.statistics}"
                if not statistics
                else "no --statistics"
            )
            raise R2MError(f"variant {chosen.variant!r}: {method.name} takes {wanted}")
        update, described, inputs = _update(chosen, base_tensors, base_hash, task_vectors, statistics)
    average = head_average(base_metadata, base)
    head = _head(chosen.head, heads, set(residuals or task_vectors), base_hash, initial_head, average)
    options = chosen.options.model_dump(exclude_none=True)
    names = {"variant": chosen.variant, "method": chosen.method.name, "head": chosen.head, "options": options}
    provenance = {**names, "base_hash": base_hash, "inputs": inputs}
    cut = {} if chosen.threshold is None else {"threshold": chosen.threshold}
    detector = inherited(base_metadata, base, **cut)
    checkpoint.save(out, {**apply(base_tensors, update), **head}, {**provenance, **detector})
    write_text(report, as_json({**provenance, **described}))


def _update(
    chosen: Chosen,
    base: Tensors,
    base_hash: str,
    files: Mapping[str, Path],
    statistics: Mapping[str, Path],
) -> Update:
    tensors, _ = read_same_base(files, base_hash)
    known = read_same_base(statistics, base_hash)[0] or None
    update, _ = merging.merge(chosen.method, tensors, chosen.options, base=base, statistics=known)
    norms = {name: norm(one.values()) for name, one in tensors.items()}
    described = {"task_vector_norms": norms, "update_norm": norm(update.values())}
    return update, described, hashes(tensors)


def _r2m_update(options: R2M, base_hash: str, real_file: Path, files: Mapping[str, Path]) -> Update:
    component, metadata = read_real_component(real_file)
    tensors, residual_metadata = read_same_base({"real": real_file, **files}, base_hash)
    real_hash = checkpoint.digest(tensors.pop("real"))
    residual_metadata.pop("real")
    if sorted(files) != sorted(component.names):
        raise R2MError(
            f"{real_file}: made of {sorted(component.names)}, but the residuals are those of {sorted(files)}"
        )
    _check_options(real_file, metadata, options.real.model_dump(exclude_none=True))
    for name, one in residual_metadata.items():
        _check_options(files[name], one, options.residual.model_dump(exclude_none=True))
        if one.get("real_hash") != real_hash:
            raise R2MError(f"{files[name]}: made with another Real component than {real_file}; make it again")
        if one.get("specialist") != name:
            raise R2MError(f"{files[name]}: is the residual of {one.get('specialist')!r}, not of {name!r}")
    blocks = {name: residual.from_tensors(one) for name, one in tensors.items()}
    update, described = aggregate(component.core, blocks, options.norm_match, options.scale)
    described["real"] = json.loads(metadata["report"])
    described["residuals"] = {name: json.loads(one["report"]) for name, one in residual_metadata.items()}
    return update | component.running, described, json.loads(metadata["inputs"])


def _check_options(path: Path, metadata: Mapping[str, str], options: dict[str, Any]) -> None:
    made_with = json.loads(metadata.get("options", "{}"))
    if made_with != options:
        raise R2MError(f"{path}: made with the options {made_with}, but the variant has {options}")


def _head(
    rule: str,
    files: Mapping[str, Path],
    names: set[str],
    base_hash: str,
    initial: Path | None,
    average: Average,
) -> dict[str, Tensor]:
    if set(files) != names:
        raise R2MError(f"--head: expected those of {sorted(names)}, got {sorted(files)}")
    heads, _ = read_same_base(files, base_hash)
    first = checkpoint.load(initial)[0] if initial is not None else None
    if first is not None:
        first = {key: tensor for key, tensor in first.items() if key.startswith(HEAD)}
    return merge_heads(heads, rule, first, average)
