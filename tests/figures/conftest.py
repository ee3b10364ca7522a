"""Synthetic results of any size for the figures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from r2m.evaluate.protocols import EvaluationContext, describe, order_models, order_test_sets
from r2m.evaluate.tables import group_means
from r2m.figures.style import METHOD_COLOURS

FAMILIES = ("FS", "FR", "EFS", "FE")


@dataclass(frozen=True)
class Results:
    """What `r2m tables` leaves behind, as frames."""

    context: EvaluationContext
    auc: pd.DataFrame
    models: pd.DataFrame
    means: pd.DataFrame


def make_results(
    trained: int, unseen: int, test_domains: int, merges: int, name_length: int = 4, joint: bool = True
) -> Results:
    """Specialists for `trained` generators, `merges` merges, base and joint, on every test set."""
    rng = np.random.default_rng(0)
    names = [f"g{index}" + "x" * (name_length - 2) for index in range(trained + unseen)]
    generators = {
        name: {"family": FAMILIES[index % 4], "role": "train" if index < trained else "unseen"}
        for index, name in enumerate(names)
    }
    domains = {"celeba": {"role": "train", "label": "CelebA"}} | {
        f"d{index}": {"role": "test", "label": f"Domain {index}"} for index in range(test_domains)
    }
    context = EvaluationContext.model_validate({"generators": generators, "domains": domains})
    rows = [("base", "base", "", "Base, linear probe")]
    rows += [(name, "specialist", "", name) for name in names[:trained]]
    rows += [("joint", "joint", "", "Joint training")] if joint else []
    rows += [(method, "merge", method, method.replace("_", " ")) for method in list(METHOD_COLOURS)[:merges]]
    models = order_models(pd.DataFrame(rows, columns=["model", "kind", "method", "label"]), context)
    sets = order_test_sets([describe(d, g, context) for d in domains for g in names], context)
    level = {"base": 0.55, "specialist": 0.6, "joint": 0.9, "merge": 0.85}
    auc = pd.DataFrame(
        [
            {
                "model": model["model"],
                "test_set": item.name,
                "generator": item.generator,
                "domain": item.domain,
                "family": item.family,
                "protocol": item.protocol,
                "auc": 1.0
                if model["model"] == item.generator
                else float(np.clip(rng.normal(level[model["kind"]], 0.12), 0, 1)),
            }
            for _, model in models.iterrows()
            for item in sets
        ]
    )
    return Results(context, auc, models, group_means(auc, models, context))


@pytest.fixture
def results() -> Callable[..., Results]:
    return make_results
