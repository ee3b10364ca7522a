"""The workflow's stages of a merge: files in, the passes of `passes` and methods, files out."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from r2m.errors import R2MError
from r2m.files import write_text
from r2m.merge import merging, passes, registry
from r2m.merge.heads import Average, merge_heads
from r2m.merge.linalg import singular_values
from r2m.merge.method import Method
from r2m.merge.options import R2M
from r2m.merge.stream import MemorySource, TensorStream, averages, trained
from r2m.merge.tensors import Tensors, apply, as_matrix, norm
from r2m.merge.tensors import task_vector as subtracted
from r2m.models import checkpoint
from r2m.models.config import head_average, inherited
from r2m.models.decision import Decision
from r2m.models.heads import HEAD
from r2m.options import Section, complaint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A merge variant with the options that tuning chose for it, and how its logits are read."""

    variant: str
    method: Method
    head: str
    options: Section
    decision: Decision = field(default_factory=Decision)

    def r2m(self) -> R2M:
        """Return the options, which must be those of R²M; raises R2MError otherwise."""
        if not isinstance(self.options, R2M):
            raise R2MError(f"variant {self.variant!r}: expected the method r2m, got {self.method.name}")
        return self.options


def read_chosen(path: Path) -> Chosen:
    """Read results/tune/<variant>/chosen.json.

    Raises:
        R2MError: missing, not JSON, or without valid `variant`, `method`, `head` and `options`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = {key: content[key] for key in ("variant", "method", "head", "options")}
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise R2MError(f"{path}: expected JSON with variant, method, head and options ({error})") from error
    method = registry.get(fields["method"])
    try:
        options = method.options.model_validate(fields["options"])
    except ValidationError as error:
        raise R2MError(f"{path}: {complaint(error, 'options')}") from error
    try:
        decision = Decision.model_validate(content.get("decision", {}))
    except ValidationError as error:
        raise R2MError(f"{path}: {complaint(error, 'decision')}") from error
    return Chosen(fields["variant"], method, fields["head"], options, decision)


def read_same_base(
    files: Mapping[str, Path], base_hash: str | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, str]]]:
    """Read tensors and metadata of several files by name, checking that they come from one base.

    Raises:
        R2MError: a file is missing or corrupt, or was made from another base (None: than the first file).
    """
    tensors, metadata = {}, {}
    for name, path in files.items():
        tensors[name], metadata[name] = _load(path)
        stated = metadata[name].get("base_hash")
        base_hash = base_hash or stated
        if stated is None or stated != base_hash:
            raise R2MError(f"{path}: made from base {stated}, expected {base_hash}")
    return tensors, metadata


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a checkpoint into memory of its own: what BLAS rounds to depends on how operands are aligned."""
    tensors, metadata = checkpoint.load(path)
    return {key: tensor.clone() for key, tensor in tensors.items()}, metadata


def task_vector(*, base: Path, specialist: Path, task_vector: Path, head: Path) -> None:
    """Subtract the base from a specialist, and put its head aside.

    Raises:
        R2MError: the specialist was not made from this base, its tensors do not fit, or it has no head.
    """
    base_tensors, _ = checkpoint.load(base)
    tensors, metadata = checkpoint.load(specialist)
    base_hash = checkpoint.digest(base_tensors)
    if metadata.get("base_hash") != base_hash:
        raise R2MError(
            f"{specialist}: made from base {metadata.get('base_hash')}, but {base} has the hash {base_hash}"
        )
    head_tensors = {key: tensor for key, tensor in tensors.items() if key.startswith(HEAD)}
    if not head_tensors:
        raise R2MError(f"{specialist}: expected tensors named {HEAD}…, got none")
    backbone = {key: tensor for key, tensor in tensors.items() if key not in head_tensors}
    changes = subtracted(base_tensors, backbone)
    if not changes:
        logger.warning("%s: equal to the base, the task vector is empty", specialist)
    provenance = {**metadata, "specialist_hash": checkpoint.digest(tensors)}
    checkpoint.save(task_vector, changes, provenance)
    checkpoint.save(head, head_tensors, provenance)


def real_component(
    *, chosen: Path, task_vectors: Mapping[str, Path], core: Path, report: Path, threads: int
) -> None:
    """Write the Real component, and a report of norms, cosines and each specialist's part in it.

    Raises:
        R2MError: the variant is not R²M, or the task vectors do not fit together.
    """
    torch.set_num_threads(1)
    variant = read_chosen(chosen)
    options = variant.r2m().real
    tensors, metadata = read_same_base(dict(sorted(task_vectors.items())))
    full = TensorStream(MemorySource(tensors), threads)
    component = passes.real_component(trained(full), options, {})
    running = {f"running.{key}": tensor for key, tensor in averages(full).items()}
    provenance = {
        "base_hash": next(iter(metadata.values()))["base_hash"],
        "variant": variant.variant,
        "options": options.model_dump(exclude_none=True),
        "inputs": _hashes(tensors),
        "report": component.report,
    }
    checkpoint.save(core, {**component.store, **running}, provenance)
    write_text(
        report, _json({"variant": variant.variant, "options": provenance["options"], **component.report})
    )


def residual(
    *,
    chosen: Path,
    core: Path,
    task_vectors: Mapping[str, Path],
    specialist: str,
    residual: Path,
    report: Path,
    threads: int,
) -> None:
    """Write the truncated residual of `specialist`; report ranks, energies and all singular values.

    Raises:
        R2MError: the variant is not R²M, the specialist has no task vector here, or the Real component was
            made of other task vectors.
    """
    torch.set_num_threads(1)
    variant = read_chosen(chosen)
    options = variant.r2m().residual
    if specialist not in task_vectors:
        raise R2MError(f"specialist {specialist}: expected one of {', '.join(sorted(task_vectors))}")
    component, metadata = _read_component(core)
    tensors, _ = read_same_base(dict(sorted(task_vectors.items())), metadata["base_hash"])
    inputs = _hashes(tensors)
    if json.loads(metadata["inputs"]) != inputs:
        raise R2MError(f"{core}: was made of other task vectors than those given; make it again")
    spectra: dict[str, dict[str, list[float]]] = {}

    def measure(key: str, matrix: Tensor) -> None:
        changes = as_matrix(tensors[specialist].get(key, torch.zeros(matrix.shape)))
        spectra[key] = {
            "task_vector_values": _rounded(singular_values(changes)),
            "residual_values": _rounded(singular_values(matrix)),
        }

    stream = trained(TensorStream(MemorySource(tensors), threads))
    store: dict[str, Tensor] = {}
    (residuals,) = passes.residuals(stream, component, [options], [store], only=[specialist], observe=measure)
    truncated = residuals[specialist]
    provenance = {
        "base_hash": metadata["base_hash"],
        "variant": variant.variant,
        "specialist": specialist,
        "options": options.model_dump(exclude_none=True),
        "inputs": inputs,
        "real_hash": checkpoint.digest({**component.store}),
        "squares": truncated.squares,
        "report": truncated.report,
    }
    checkpoint.save(
        residual, {key.removeprefix(truncated.prefix): tensor for key, tensor in store.items()}, provenance
    )
    matrices = {key: facts | spectra[key] for key, facts in truncated.report["matrices"].items()}
    header = {"variant": variant.variant, "specialist": specialist, "options": provenance["options"]}
    write_text(report, _json({**header, **truncated.report, "matrices": matrices}))


def merge(
    *,
    chosen: Path,
    base: Path,
    task_vectors: Mapping[str, Path],
    core: Path | None,
    residuals: Mapping[str, Path],
    statistics: Mapping[str, Path],
    heads: Mapping[str, Path],
    initial_head: Path | None,
    seed: int,
    model: Path,
    report: Path,
    threads: int,
) -> None:
    """Write the base with a variant's update and head, and a report; `seed` is of the specialists' training.

    R²M takes the Real component and the residuals, every other method the task vectors, and some take
    statistics of the specialists' training data as well.

    Raises:
        R2MError: inputs that the method does not take, or that do not fit together.
    """
    torch.set_num_threads(1)
    variant = read_chosen(chosen)
    method = variant.method
    base_tensors, base_metadata = checkpoint.load(base)
    base_hash = checkpoint.digest(base_tensors)
    if isinstance(variant.options, R2M):
        if core is None or not residuals or task_vectors:
            raise R2MError(
                f"variant {variant.variant!r}: r2m takes a Real component and residuals, no task vectors"
            )
        update, described, inputs = _r2m_update(variant.options, base_hash, core, residuals, threads)
    else:
        if core is not None or residuals or not task_vectors:
            raise R2MError(f"variant {variant.variant!r}: {method.name} takes task vectors only")
        if bool(statistics) != (method.statistics is not None):
            expected = "no statistics"
            if not statistics:
                expected = f"statistics of every specialist: {method.statistics}"
            raise R2MError(f"variant {variant.variant!r}: {method.name} takes {expected}")
        tensors, _ = read_same_base(task_vectors, base_hash)
        known_statistics = read_same_base(statistics, base_hash)[0] or None
        update, _ = merging.merge(
            method, tensors, variant.options, base=base_tensors, statistics=known_statistics, threads=threads
        )
        norms = {name: norm(changes.values()) for name, changes in tensors.items()}
        described = {"task_vector_norms": norms, "update_norm": norm(update.values())}
        inputs = _hashes(tensors)
    average = head_average(base_metadata, base)
    head = _head(variant.head, heads, set(residuals or task_vectors), base_hash, initial_head, average)
    options = variant.options.model_dump(exclude_none=True)
    names = {"variant": variant.variant, "method": method.name, "head": variant.head, "options": options}
    provenance = {**names, "seed": seed, "base_hash": base_hash, "inputs": inputs}
    detector = inherited(base_metadata, base, **dict(variant.decision))
    checkpoint.save(model, {**apply(base_tensors, update), **head}, {**provenance, **detector})
    write_text(report, _json({**provenance, **described}))


def _r2m_update(
    options: R2M, base_hash: str, core: Path, files: Mapping[str, Path], threads: int
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    component, metadata = _read_component(core)
    tensors, stated = read_same_base(dict(sorted(files.items())), base_hash)
    if metadata["base_hash"] != base_hash:
        raise R2MError(f"{core}: made from base {metadata['base_hash']}, expected {base_hash}")
    if sorted(files) != list(component.names):
        raise R2MError(
            f"{core}: made of {list(component.names)}, but the residuals are those of {sorted(files)}"
        )
    _check_options(core, metadata, options.real)
    real_hash = checkpoint.digest({**component.store})
    for name, fields in stated.items():
        _check_options(files[name], fields, options.residual)
        if fields.get("real_hash") != real_hash:
            raise R2MError(f"{files[name]}: made with another Real component than {core}; make it again")
        if fields.get("specialist") != name:
            raise R2MError(f"{files[name]}: is the residual of {fields.get('specialist')!r}, not of {name!r}")
    residuals = {
        name: passes.Residual(json.loads(fields["squares"]), tensors[name], "", json.loads(fields["report"]))
        for name, fields in stated.items()
    }
    cores, running = (
        {key.removeprefix(start): tensor for key, tensor in component.store.items() if key.startswith(start)}
        for start in ("core.", "running.")
    )
    stream = TensorStream(MemorySource({"core": cores}), threads)
    averaged = passes.average(stream, component, residuals, options.norm_match, {})
    state = passes.scaled(averaged, options.scale)
    update = {key: passes.update(key, state) for key in stream.keys} | running
    return update, state.report, json.loads(metadata["inputs"])


def _read_component(path: Path) -> tuple[passes.RealComponent, dict[str, str]]:
    """Read what `real_component` wrote: the component and the file's metadata.

    Raises:
        R2MError: missing, corrupt, or another kind of file.
    """
    tensors, metadata = _load(path)
    if "inputs" not in metadata or "report" not in metadata:
        raise R2MError(f"{path}: expected a Real component")
    report = json.loads(metadata["report"])
    return passes.RealComponent(tuple(report["specialists"]), tensors, report), metadata


def _check_options(path: Path, metadata: Mapping[str, str], options: Section) -> None:
    actual, expected = json.loads(metadata.get("options", "{}")), options.model_dump(exclude_none=True)
    if actual != expected:
        raise R2MError(f"{path}: made with the options {actual}, but the variant has {expected}")


def _head(
    rule: str,
    files: Mapping[str, Path],
    names: set[str],
    base_hash: str,
    initial: Path | None,
    average: Average,
) -> dict[str, Tensor]:
    if set(files) != names:
        raise R2MError(f"heads: expected those of {sorted(names)}, got {sorted(files)}")
    heads, _ = read_same_base(dict(sorted(files.items())), base_hash)
    first = checkpoint.load(initial)[0] if initial is not None else None
    if first is not None:
        first = {key: tensor for key, tensor in first.items() if key.startswith(HEAD)}
    return merge_heads(heads, rule, first, average)


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.7g}") for value in values.tolist()]


def _hashes(tensors: Mapping[str, Tensors]) -> dict[str, str]:
    """Return the content hash of every checkpoint."""
    return {name: checkpoint.digest(model) for name, model in tensors.items()}


def _json(report: Mapping[str, Any]) -> str:
    """Return a report as indented JSON text."""
    return json.dumps(report, indent=2, allow_nan=False) + "\n"
