"""Heads of a merged backbone: made of the specialists' heads, or fitted to its own features."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from r2m.evaluate.bench import Bench
from r2m.evaluate.scores import KEPT
from r2m.merge.stages import Chosen
from r2m.merge.tensors import Tensors
from r2m.train.pairs import rows_of
from r2m.train.probe import fit_head, fit_lda_head


def head_scores(bench: Bench, variants: Sequence[Chosen], generators: Sequence[str]) -> pd.DataFrame:
    """Return the scores of every merge variant with every head, columns variant, head, `KEPT` and logit.

    The backbone's features are computed once; a head is a product with them. Fitted heads see the training
    split of `generators` and nothing else.
    """
    fakes, reals = rows_of(bench.inputs, list(generators), "train")
    train = pd.concat([fakes, reals], ignore_index=True)
    scored = bench.inputs.select(split=["val", "test"])
    parts = []
    for variant in variants:
        tensors = bench.merged(variant.method, variant.options)
        x = bench.features(tensors, train)
        features = bench.features(tensors, scored)
        for name, head in heads(bench, x, train["label"].to_numpy()):
            logits = logits_of(features, head)
            parts.append(scored[KEPT].assign(variant=variant.variant, head=name, logit=logits))
    return pd.concat(parts, ignore_index=True)[["variant", "head", *KEPT, "logit"]]


def heads(bench: Bench, x: np.ndarray, label: np.ndarray) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield names and heads: made of the specialists', and fitted to features `x` (n, D)."""
    yield "average", bench.head("average")
    yield "base", bench.head("base")
    for name in bench.heads:
        yield f"specialist:{name}", bench.head(f"specialist:{name}")
    yield "retrain", fit_head(x, label)
    yield "lda", fit_lda_head(x, label)


def logits_of(features: np.ndarray, head: Tensors) -> np.ndarray:
    """Return the logits (n,) of a head on features (n, D), in float64."""
    weight, bias = head["head.weight"].double().numpy()[0], head["head.bias"].double().item()
    return features.astype(np.float64) @ weight + bias
