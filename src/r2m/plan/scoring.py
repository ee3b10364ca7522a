"""Stages of evaluation: every model's scores, and the tables of all of them."""

from pathlib import Path

from r2m.plan.plan import BASE_SCORES, JOINT, PROBE, RESULTS, Plan
from r2m.plan.stage import Job, Stage

MEMORY = 2500
TABLES = (
    *("auc.csv", "models.csv", "dumbbell.csv", "intervals.csv", "delong.csv", "reliability.csv"),
    *("operating.csv", "operating.md", "operating.tex", "calibration.csv"),
    *("closest.csv", "closest.md", "closest.tex"),
    *("video.csv", "cross_auc.csv", "main.md", "main.tex", "main_intervals.md", "main_intervals.tex"),
    *("protocols.csv", "protocols.md", "protocols.tex"),
    *("protocols_p4.csv", "protocols_p4.md", "protocols_p4.tex", "metrics.json"),
)


def stages(plan: Plan) -> list[Stage]:
    """Return the stages of a plan that score models."""
    return [score(plan), score_base(plan), tables(plan)]


def score(plan: Plan) -> Stage:
    """Score every val and test image with one model."""

    def job(kind: str, model: str, seed: str) -> Job:
        label = "Joint training" if kind == JOINT else None
        if kind == "specialist" and model in plan.params.generators:
            label = plan.params.generators[model].label
        if kind == "merge":
            label = plan.params.merge.methods[model].label
        method = plan.variants[model] if kind == "merge" else None
        outputs = stage.paths(kind=kind, model=model, seed=seed)
        checkpoint = plan.model(kind, model, seed)
        return score_job(plan, checkpoint, kind, model, label or model, method, int(seed), outputs)

    instances = [
        {"kind": kind, "model": model, "seed": seed}
        for kind, models in plan.models.items()
        for model in models
        for seed in plan.seeds
    ]
    stage = Stage(
        "score",
        {"scores": "results/scores/{kind}/{model}/seed{seed}/scores.parquet"},
        job,
        instances,
        memory=MEMORY,
    )
    return stage


def score_base(plan: Plan) -> Stage:
    """Score with the linear probe; neither it nor the base depends on a seed."""

    def job() -> Job:
        outputs = {"scores": BASE_SCORES}
        return score_job(plan, PROBE, "base", "base", "Base (linear probe)", None, None, outputs)

    return Stage("score_base", {"scores": str(BASE_SCORES)}, job, memory=MEMORY, place="score/base/base")


def score_job(
    plan: Plan,
    checkpoint: Path,
    kind: str,
    name: str,
    label: str,
    method: str | None,
    seed: int | None,
    outputs: dict[str, Path],
) -> Job:
    """Return the scoring of all images with one checkpoint."""
    return Job(
        "r2m.evaluate.stages:score",
        {"files": plan.files(plan.sets), "model": checkpoint},
        outputs,
        {
            "kind": kind,
            "name": name,
            "label": label,
            "method": method,
            "seed": seed,
            "batch_size": plan.params.evaluate.batch_size,
            "compute": plan.compute,
        },
    )


def tables(plan: Plan) -> Stage:
    """Compute all tables of all models."""

    def job() -> Job:
        return Job(
            "r2m.report.stages:tables",
            {"scores": plan.all_scores},
            {"out": RESULTS / "tables"},
            {
                "context": plan.context,
                "resamples": plan.params.evaluate.resamples,
                "seed": plan.params.seed,
                "reference": plan.params.reference,
                "video": plan.params.evaluate.video,
                "built_in": [name for name, one in plan.params.generators.items() if one.forge],
                "members": plan.members,
            },
        )

    outputs = {name: f"results/tables/{name}" for name in TABLES}
    return Stage("tables", outputs, job, is_benchmarked=False)
