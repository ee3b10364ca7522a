"""The stages `finetune`, `probe` and `statistics`: files in, files out."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from r2m.digest import code_digest
from r2m.errors import R2MError
from r2m.files import atomic_path
from r2m.models import checkpoint
from r2m.models.config import inherited
from r2m.models.heads import initial_head as drawn_head
from r2m.session import open_session
from r2m.session_files import Compute, SessionFiles
from r2m.train import second_moments
from r2m.train.finetune import finetune as train
from r2m.train.options import FinetuneOptions
from r2m.train.probe import fit_head
from r2m.train.processes import are_launched, launch, world
from r2m.train.rows import rows_of
from r2m.train.tuning import registry as tunings
from r2m.train.validation import val_decision
from r2m.trunk.inputs import images_digest
from r2m.trunk.options import AugmentOptions


def finetune(
    *,
    files: SessionFiles,
    initial_head: Path,
    name: str,
    generators: Sequence[str],
    options: FinetuneOptions,
    augment: AugmentOptions,
    objective: str,
    seed: int,
    compute: Compute,
    state: Path,
    model: Path,
    history: Path,
    threads: int = 1,
) -> None:
    """Fine-tune the detector called `name` from the base on the fakes of `generators`.

    With the objective `multiclass`, Real and each generator are classes and the head starts from the seed;
    with `binary` it starts from `initial_head`. Resumes from `state`, which is removed at the end. `model`
    holds the tensors that training can change, of the step with the best val AUC; crops are augmented, cached
    activations are not. With `options.processes` above 1 it starts as many, unless torchrun has.

    Raises:
        R2MError: an unknown objective, no images in a split, a loss that is not finite, or files that do not
            fit together.
    """
    arguments = dict(locals())
    if objective not in ("binary", "multiclass"):
        raise R2MError(f"objective {objective!r}: expected binary or multiclass")
    if options.processes > 1 and not are_launched():
        launch(finetune, arguments, options.processes)
        return
    with world(compute.device) as processes:
        session = open_session(files, compute, threads)
        multiclass = objective == "multiclass"
        if multiclass:
            head = drawn_head(session.detector.width, seed, 1 + len(generators), compute.backbone.head)
        else:
            head = checkpoint.load(initial_head)[0]
        session.detector.load_tensors(head, f"{initial_head}: tensors")
        augmented = None if files.trunks else augment
        provenance = {
            "content": "specialist",
            "name": name,
            "generators": list(generators),
            "objective": objective,
            "base_hash": session.base_hash,
            "backbone": compute.backbone.model_dump(),
            "options": options.model_dump(),
            "augment": None if augmented is None else augmented.model_dump(),
            "seed": seed,
            "precision": compute.precision,
            "images": images_digest(session.inputs.rows),
            "code": code_digest([f"{__name__}:finetune", tunings.module_of(options.tuning.method)]),
        }
        progress = train(
            session,
            generators,
            options,
            augmented,
            name=name,
            seed=seed,
            state_path=state,
            fingerprint=hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest(),
            world=processes,
        )
        if not processes.is_first:
            return
    with atomic_path(history) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "loss", "val_auc"])
        writer.writeheader()
        writer.writerows(progress.history)
    selected = {"step": progress.best_step, "val_auc": progress.best_auc, "steps": progress.step}
    session.detector.load_tensors(progress.best)
    decision = val_decision(session, generators)
    classes = {"labels": ("real", *generators)} if multiclass else {}
    described = inherited(checkpoint.read_metadata(files.base), files.base, **classes, **dict(decision))
    checkpoint.save(model, progress.best, {**provenance, "selected": selected, **described})
    state.unlink(missing_ok=True)


def probe(
    *, files: SessionFiles, generators: Sequence[str], compute: Compute, head: Path, threads: int = 1
) -> None:
    """Write the head that logistic regression fits to the base's features of the training split.

    Raises:
        R2MError: no images of a generator in the training split, or files that do not fit together.
    """
    session = open_session(files, compute, threads)
    rows = pd.concat(rows_of(session.inputs, generators, "train"), ignore_index=True)
    fitted = fit_head(session.pooled(rows), rows["label"].to_numpy(), compute.backbone.head)
    session.detector.load_tensors(fitted)
    decision = val_decision(session, generators)
    provenance = {
        "content": "head",
        "base_hash": session.base_hash,
        "generators": list(generators),
        "code": code_digest([f"{__name__}:probe"]),
        **inherited(checkpoint.read_metadata(files.base), files.base, **dict(decision)),
    }
    checkpoint.save(head, fitted, provenance)


def statistics(
    *,
    files: SessionFiles,
    specialist: Path,
    name: str,
    method: str,
    generators: Sequence[str],
    images: int,
    seed: int,
    compute: Compute,
    statistics: Path,
    threads: int = 1,
) -> None:
    """Write what the merging `method` needs of training images of the specialist called `name`.

    That is squared gradients (fisher) or Grams of the layers' inputs (regmean), on about `images` images of
    what it was trained on, drawn by `seed`.

    Raises:
        R2MError: a specialist of another base, a method that takes no statistics, or values not finite.
    """
    session = open_session(files, compute, threads)
    tensors, metadata = checkpoint.load(specialist)
    if metadata.get("base_hash") != session.base_hash:
        raise R2MError(
            f"{specialist}: made from base {metadata.get('base_hash')}, expected {session.base_hash}"
        )
    session.detector.load_tensors(tensors, f"{specialist}: tensors")
    rows = second_moments.draw(session.inputs, generators, images, seed, name)
    computed = second_moments.compute(method, session, rows)
    provenance = {
        "content": "statistics",
        "kind": method,
        "name": name,
        "generators": list(generators),
        "base_hash": session.base_hash,
        "specialist_hash": checkpoint.digest(tensors),
        "backbone": compute.backbone.model_dump(),
        "count": len(rows),
        "seed": seed,
        "precision": compute.precision,
        "images": images_digest(rows),
        "code": code_digest([f"{__name__}:statistics"]),
    }
    checkpoint.save(statistics, computed, provenance)
