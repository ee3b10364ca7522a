"""Synthetic results of any size for the figures."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from r2m.evaluate.calibration import reliability
from r2m.evaluate.means import panel_means
from r2m.evaluate.protocols import EvaluationContext, describe, order_models, order_test_sets
from r2m.merge.options import R2M
from r2m.options import with_dotted
from r2m.report.figures.style import METHOD_COLOURS

FAMILIES = ("FS", "FR", "EFS", "FE")


@dataclass(frozen=True)
class Results:
    """The tables of results, as frames."""

    context: EvaluationContext
    auc: pd.DataFrame
    models: pd.DataFrame
    means: pd.DataFrame
    intervals: pd.DataFrame
    curves: pd.DataFrame


def make_results(
    trained: int,
    unseen: int,
    test_domains: int,
    merges: int,
    name_length: int = 4,
    joint: bool = True,
    groups: Sequence[str | None] = (None,),
) -> Results:
    """Specialists for `trained` generators, `merges` merges, base and joint, on every test set.

    Unseen generators are of the `groups` in turn.
    """
    rng = np.random.default_rng(0)
    names = [f"g{index}" + "x" * (name_length - 2) for index in range(trained + unseen)]
    generators = {
        name: {"family": FAMILIES[index % 4], "role": "train"}
        if index < trained
        else {"family": FAMILIES[index % 4], "role": "unseen", "group": groups[index % len(groups)]}
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
    means = panel_means(auc, models, context)
    return Results(context, auc, models, means, make_intervals(auc, models), make_curves(auc, models))


def make_intervals(auc: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Means of whole protocols with intervals, and one mean of a part, as in intervals.csv."""
    means = auc.groupby(["model", "protocol"], sort=False)["auc"].mean().reset_index()
    table = models.merge(means, on="model").assign(part="mean", reference="r2m")
    table = table.assign(low=table["auc"] - 0.02, high=(table["auc"] + 0.01).clip(upper=1))
    return pd.concat([table, table.iloc[:1].assign(part="FS", auc=0.123)], ignore_index=True)


def make_curves(auc: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Reliability curves of drawn probabilities, as in reliability.csv."""
    rng = np.random.default_rng(1)
    parts = []
    for _, model in models.iterrows():
        for protocol in auc["protocol"].unique():
            for is_calibrated in (False, True):
                probabilities = rng.beta(0.3, 0.3, 300)
                curve = reliability(rng.random(300) < 0.2 + 0.6 * probabilities, probabilities)
                described = {"model": model["model"], "protocol": protocol, "calibrated": is_calibrated}
                parts.append(curve.assign(**described))
    return pd.concat(parts, ignore_index=True)


def make_report(seed: int, blocks: int = 4, rank: int = 6, zero: bool = False) -> dict[str, object]:
    """The report of a residual of a transformer of width 64."""
    rng = np.random.default_rng(seed)
    shapes = {"attn.qkv": (192, 64), "attn.proj": (64, 64), "mlp.fc1": (256, 64), "mlp.fc2": (64, 256)}
    matrices = {}
    for block in range(blocks):
        for name, shape in shapes.items():
            values = np.sort(rng.gamma(2, 0.1, 64))[::-1] * np.arange(1, 65) ** -0.5
            residual = 0 * values if zero else values * np.linspace(0.4, 1, 64)
            matrices[f"blocks.{8 + block}.{name}.weight"] = {
                "shape": shape,
                "rank": 0 if zero else rank,
                "energy": 0.5,
                "task_vector_values": values.tolist(),
                "residual_values": np.sort(residual)[::-1].tolist(),
            }
    return {"matrices": matrices}


def make_candidates(
    options: dict[str, list[float | str]], generators: int = 4, seed: int = 0
) -> pd.DataFrame:
    """Candidates of tuning: the product of the options' values, AUCs around .9, the best chosen."""
    rng = np.random.default_rng(seed)
    grid = list(itertools.product(*options.values()))
    frame = pd.DataFrame(grid, columns=list(options), index=range(len(grid)))
    frame.insert(0, "candidate", range(len(grid)))
    aucs = {f"val_auc.g{index}": rng.uniform(0.8, 1, len(grid)) for index in range(generators)}
    frame["val_auc"] = np.mean(list(aucs.values()), axis=0) if aucs else rng.uniform(0.8, 1, len(grid))
    frame = frame.assign(**aucs)
    return frame.assign(chosen=np.arange(len(grid)) == int(frame["val_auc"].argmax()))


def make_merge_report(names: list[str], *, head: str = "average", **changes: object) -> dict[str, object]:
    """The report of a merge by R²M; `changes` are dotted options with `__` for dots."""
    options = R2M.model_validate(
        with_dotted({}, {key.replace("__", "."): one for key, one in changes.items()})
    )
    matrices = {
        f"blocks.{index}.mlp.fc1.weight": {"shape": [768 << index, 768], "rank": 7 * index + 1, "energy": 0.5}
        for index in range(3)
    }
    norms = {name: 0.5 + 0.01 * index for index, name in enumerate(names)}
    return {
        "variant": "r2m",
        "method": "r2m",
        "head": head,
        "options": options.model_dump(exclude_none=True),
        "core_norm": 0.541,
        "residual_norms": norms,
        "matched_norms": dict.fromkeys(names, 0.52),
        "mean_residual_norm": 0.2,
        "remaining_share": 0.33,
        "lambda": 16.82,
        "update_norm": 3.8,
        "real": {"task_vector_norms": norms, "shared_energy": dict.fromkeys(names, 0.36)},
        "residuals": {name: {"norm": 0.5, "energy": 0.64, "matrices": matrices} for name in names},
    }
