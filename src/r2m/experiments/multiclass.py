"""Joint training with one class per generator, beside Fake against Real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments.experiment import (
    ROOT,
    Experiment,
    ExperimentOptions,
    merge_stage,
    protocol_series,
    protocol_titles,
)
from r2m.plan.stage import Job, Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from r2m.evaluate.bench import Bench
    from r2m.merge.stages import Chosen
    from r2m.plan.plan import Plan
    from r2m.report.table import Table

LABELS = {"binary": "Fake against Real", "multiclass": "one class per generator"}


class MulticlassOptions(ExperimentOptions):
    """Joint training once more, with Real and each generator as classes."""


def stages(plan: Plan, options: MulticlassOptions) -> Sequence[Stage]:
    """Return the joint training with classes, and the stage of the scores."""
    from r2m.plan.training import MEMORY, trained_outputs

    def train(seed: str) -> Job:
        outputs = trained.paths(seed=seed)
        joint = plan.params.joint_options()
        return plan.finetune_job(
            "joint_multiclass", plan.trained, joint, seed, outputs, objective="multiclass"
        )

    def models(seed: str) -> Mapping[str, Mapping[str, Path]]:
        binary = plan.model("joint", "joint", seed)
        return {"models": {"binary": binary, "multiclass": trained.paths(seed=seed)["model"]}}

    trained = Stage(
        "multiclass_joint",
        trained_outputs(f"{ROOT}/multiclass/joint/seed{{seed}}"),
        train,
        [{"seed": seed} for seed in plan.seeds],
        memory=MEMORY,
        place="experiments/multiclass/joint",
    )
    return [trained, merge_stage(plan, "multiclass", [], {}, memory=3000, inputs=models)]


def run(bench: Bench, variants: Sequence[Chosen], *, models: Mapping[str, Path]) -> pd.DataFrame:
    """Return the scores of both joint models, columns objective, `KEPT` and logit."""
    import pandas as pd

    from r2m.models import checkpoint

    parts = []
    for objective, path in models.items():
        tensors, _ = checkpoint.load(path)
        parts.append(bench.scores(tensors, {}).assign(objective=objective))
    return pd.concat(parts, ignore_index=True)[["objective", *KEPT, "logit"]]


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: one row per objective."""
    from r2m.evaluate.experiment_means import protocol_means, read_settings
    from r2m.report.table import Table

    by = ["objective"]
    means = protocol_means(read_settings(source, by), by, context)
    means.insert(1, "training", means["objective"].map(LABELS))
    titles = protocol_titles(means)
    return Table(
        means,
        {"training": "Joint training", **titles},
        caption=(
            "Joint training with two objectives. With classes the logit is that of all fake classes together"
            " minus Real's. Mean AUC; best bold."
        ),
        label="multiclass",
        best=list(titles),
    )


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw one row per objective."""
    from r2m.report.figures.dots import dot_rows

    return dot_rows(
        ["Joint training"] * len(table),
        table["training"].tolist(),
        protocol_series(table),
        "Mean AUC of joint training with two objectives. Numbers: val.",
    )


EXPERIMENT = Experiment(
    title="Joint training, multi-class",
    caption=(
        "Joint training on all trained generators as in the main table, Fake against Real, and once more with"
        " Real and each generator as classes, in as many steps. The logit of fake is log Σ exp of the fake"
        " classes' minus Real's. Compare the rows: the second knows the names of generators"
        " and nothing more. Mean AUC on val (trained generators) and over the test sets of each protocol."
    ),
    options=MulticlassOptions,
    stages=stages,
    table=table,
    figure=figure,
    order=11,
)
