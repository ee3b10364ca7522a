"""Reals of two sources in training: what becomes of the Real component, and of the other source's images."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from r2m.evaluate.bench import Bench
from r2m.evaluate.scores import KEPT
from r2m.experiments.plans import SourcesPlan
from r2m.experiments.tuned import as_text, tuned_merge
from r2m.merge import gram
from r2m.merge.stream import MemorySource, TensorStream
from r2m.merge.tensors import TaskVectors, dot
from r2m.options import combinations, with_dotted

ONE, TWO = "A", "A+B"
BY = ["variant", "training", "core"]
MEASURES = ["first_share", "second_share", "mean_cosine"]


def source_scores(bench: Bench, two: Mapping[str, TaskVectors], plan: SourcesPlan) -> pd.DataFrame:
    """Return the scores of every variant and core, on specialists of one source of reals and of two.

    `bench` holds the specialists of one source, `two` the `task_vectors` and `heads` of those of two. The
    images are the same. Columns: variant, training (`A`, `A+B`), core, tuned, `KEPT`, logit, and of the
    training: the shares of the first and second eigenvalue of its Gram matrix, and the cosine between its
    mean task vector and that of one source.
    """
    benches = {ONE: bench, TWO: replace(bench, task_vectors=two["task_vectors"], heads=two["heads"])}
    measures = {training: _measures(bench, own) for training, own in benches.items()}
    parts = []
    for name, variant in plan.variants.items():
        settings = product(benches.items(), combinations(plan.cores.get(name, {})))
        for (training, own), core in settings:
            options = with_dotted(variant.options, core)
            made = tuned_merge(
                own, name, variant, own.task_vectors, own.heads, plan.generators, method_options=options
            )
            scores = own.scores(own.updated(made.update), made.head)[[*KEPT, "logit"]]
            texts = {"core": as_text(core), "tuned": as_text(made.chosen)}
            parts.append(scores.assign(variant=name, training=training, **texts, **measures[training]))
    return pd.concat(parts, ignore_index=True)[[*BY, "tuned", *MEASURES, *KEPT, "logit"]]


def _measures(one: Bench, own: Bench) -> dict[str, float]:
    shares = eigenvalue_shares(own.task_vectors)
    values = [shares[0], shares[1], mean_cosine(one.task_vectors, own.task_vectors)]
    return dict(zip(MEASURES, values, strict=True))


def eigenvalue_shares(task_vectors: TaskVectors) -> NDArray[np.float64]:
    """Return the eigenvalues (K,) of the Gram matrix A Aᵀ of K task vectors over their sum, greatest first.

    The first is the share of ‖A‖² that one shared direction holds; K ≥ 2 equal task vectors give 1, 0, ….
    With a single one a zero is added, so that there is a second.
    """
    blocks = TensorStream(MemorySource(task_vectors))
    whole = gram.total(gram.grams(blocks), len(blocks.names))
    values = torch.linalg.eigvalsh(whole).flip(0).clamp(min=0).numpy()
    total = values.sum()
    shares = values / total if total > 0 else np.zeros_like(values)
    return np.pad(shares, (0, max(0, 2 - len(shares))))


def mean_cosine(one: TaskVectors, other: TaskVectors) -> float:
    """Return the cosine between the sums of two groups' task vectors, over all tensors; NaN for a zero."""
    inner, squares = 0.0, [0.0, 0.0]
    for key in sorted({key for group in (one, other) for tensors in group.values() for key in tensors}):
        found = [[tensors[key] for tensors in group.values() if key in tensors] for group in (one, other)]
        sums = [torch.stack(tensors).sum(0) if tensors else None for tensors in found]
        for place, tensor in enumerate(sums):
            squares[place] += 0.0 if tensor is None else dot(tensor, tensor)
        if sums[0] is not None and sums[1] is not None:
            inner += dot(sums[0], sums[1])
    return inner / (squares[0] * squares[1]) ** 0.5 if all(squares) else float("nan")
