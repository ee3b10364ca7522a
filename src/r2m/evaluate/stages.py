"""The stages `tune`, `score` and `onnx`: files in, files out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from r2m import manifest
from r2m.errors import R2MError
from r2m.evaluate import scores as score_files
from r2m.evaluate.bench import open_bench
from r2m.evaluate.tune import tune as choose
from r2m.files import atomic_path, write_text
from r2m.merge.stages import read_same_base
from r2m.merge.variants import MergeVariant
from r2m.models import checkpoint
from r2m.models.heads import HEAD
from r2m.options import combinations
from r2m.session import open_session
from r2m.session_files import Compute, MergeParts, SessionFiles


def tune(
    *,
    files: SessionFiles,
    parts: MergeParts,
    statistics: Mapping[str, Path],
    variant: str,
    options: MergeVariant,
    generators: Sequence[str],
    compute: Compute,
    candidates: Path,
    chosen: Path,
    threads: int = 1,
) -> None:
    """Merge and score every candidate on the val split; write the curve (CSV) and the best options (JSON).

    Raises:
        R2MError: no images in the val split, no candidate that gives finite logits, or files that do not fit.
    """
    bench = open_bench(files, compute, parts, threads)
    method = options.method or variant
    tuned = choose(
        bench,
        method,
        options.options,
        combinations(options.tune),
        head=bench.head(options.head),
        generators=generators,
        statistics=read_same_base(statistics, bench.base_hash)[0] or None,
    )
    with atomic_path(candidates) as temporary:
        pd.DataFrame(tuned.rows).to_csv(temporary, index=False)
    best = next(row for row in tuned.rows if row["chosen"])
    description = {
        "variant": variant,
        "method": method,
        "head": options.head,
        "options": tuned.options,
        "tuned": {key: best[key] for key in options.tune},
        "val_auc": best["val_auc"],
        "decision": tuned.decision.model_dump(),
    }
    write_text(chosen, json.dumps(description, indent=2, sort_keys=True) + "\n")


def score(
    *,
    files: SessionFiles,
    model: Path,
    kind: str,
    name: str,
    label: str,
    method: str | None,
    seed: int | None,
    batch_size: int,
    compute: Compute,
    scores: Path,
    threads: int = 1,
) -> None:
    """Write the scores of every val and test image by `model`, laid over the base.

    `model` is a head, a specialist or a merge; `kind` (base, specialist, joint or merge), `name`, `label`,
    `method` and `seed` tell readers of the scores what it is.

    Raises:
        R2MError: a model without a head, tensors that do not fit the base, or a logit that is not finite.
    """
    session = open_session(files, compute, threads)
    tensors = checkpoint.load(model)[0]
    if HEAD + "weight" not in tensors:
        raise R2MError(f"{model}: holds no head ({HEAD}weight); expected a model or a head")
    session.detector.load_tensors(tensors, f"{model}: tensors")
    described = {"model": name, "kind": kind, "method": method, "label": label, "seed": seed}
    score_files.write(score_files.score(session, batch_size), described, scores)


def onnx(*, model: Path, manifests: Sequence[Path], seed: int, out: Path, threads: int = 1) -> None:
    """Write how a detector as ONNX compares with torch in fp32, on val images of the manifests, as JSON."""
    import torch

    from r2m.evaluate.onnx_parity import onnx_parity, val_sample
    from r2m.models.image_detector import load

    torch.set_num_threads(threads)
    images = manifest.concat(manifest.read(path) for path in manifests)
    parity = onnx_parity(load(model, device="cpu", precision="fp32"), val_sample(images, seed))
    write_text(out, json.dumps(parity, indent=2) + "\n")
