"""Stages of merging: statistics, tuning on val, R²M's Real component and residuals, and the merged models."""

from r2m.merge import registry
from r2m.plan.plan import BASE, INITIAL_HEAD, Plan
from r2m.plan.stage import Job, Stage


def stages(plan: Plan) -> list[Stage]:
    """Return the stages of a plan that merge."""
    return [statistics(plan), tune(plan), real_component(plan), residual(plan), merge(plan)]


def statistics(plan: Plan) -> Stage:
    """Compute what some methods need of each specialist's training data."""

    def job(variant: str, seed: str, specialist: str) -> Job:
        method, generators = plan.variants[variant], plan.members[specialist]
        default = registry.get(method).options.model_fields["images"].default
        return Job(
            "r2m.train.stages:statistics",
            {
                "files": plan.files(plan.training_sets(generators)),
                "specialist": plan.specialist(specialist, "model", seed),
            },
            stage.paths(variant=variant, seed=seed, specialist=specialist),
            {
                "name": specialist,
                "method": method,
                "generators": generators,
                "images": plan.params.merge.methods[variant].options.get("images", default),
                "seed": int(seed),
                "compute": plan.compute,
            },
        )

    needing = [name for name, method in plan.variants.items() if registry.get(method).statistics is not None]
    stage = Stage(
        "statistics",
        {"statistics": "results/statistics/{variant}/seed{seed}/{specialist}.safetensors"},
        job,
        _per_specialist(plan, needing),
        memory=3000,
    )
    return stage


def tune(plan: Plan) -> Stage:
    """Choose each variant's options on val."""

    def job(variant: str, seed: str) -> Job:
        return Job(
            "r2m.evaluate.stages:tune",
            {
                "files": plan.files(plan.training_sets(plan.trained)),
                "parts": plan.parts(seed),
                "statistics": plan.statistics(variant, seed),
            },
            stage.paths(variant=variant, seed=seed),
            {
                "variant": variant,
                "options": plan.tuned(variant),
                "generators": plan.trained,
                "compute": plan.compute,
            },
            modules=plan.method_modules([variant]),
        )

    folder = "results/tune/{variant}/seed{seed}"
    outputs = {"candidates": f"{folder}/candidates.csv", "chosen": f"{folder}/chosen.json"}
    stage = Stage("tune", outputs, job, plan.seeded(variant=plan.variants), memory=4000)
    return stage


def real_component(plan: Plan) -> Stage:
    """Estimate what the task vectors share (R²M)."""

    def job(variant: str, seed: str) -> Job:
        return Job(
            "r2m.merge.stages:real_component",
            {
                "chosen": plan.chosen(variant, seed),
                "task_vectors": plan.specialists("task_vector", seed),
            },
            stage.paths(variant=variant, seed=seed),
            {},
        )

    folder = "results/real/{variant}/seed{seed}"
    outputs = {"core": f"{folder}/core.safetensors", "report": f"{folder}/report.json"}
    stage = Stage("real_component", outputs, job, plan.seeded(variant=plan.r2m_variants), memory=3000)
    return stage


def residual(plan: Plan) -> Stage:
    """Truncate what is left of one specialist beside the Real component (R²M)."""

    def job(variant: str, seed: str, specialist: str) -> Job:
        return Job(
            "r2m.merge.stages:residual",
            {
                "chosen": plan.chosen(variant, seed),
                "core": plan.real_component(variant, seed),
                "task_vectors": plan.specialists("task_vector", seed),
            },
            stage.paths(variant=variant, seed=seed, specialist=specialist),
            {"specialist": specialist},
        )

    folder = "results/residuals/{variant}/seed{seed}/{specialist}"
    outputs = {"residual": f"{folder}.safetensors", "report": f"{folder}.json"}
    stage = Stage("residual", outputs, job, _per_specialist(plan, plan.r2m_variants), memory=3000)
    return stage


def merge(plan: Plan) -> Stage:
    """Merge the specialists, and their heads."""

    def job(variant: str, seed: str) -> Job:
        is_r2m = variant in plan.r2m_variants
        return Job(
            "r2m.merge.stages:merge",
            {
                "chosen": plan.chosen(variant, seed),
                "base": BASE,
                "task_vectors": {} if is_r2m else plan.specialists("task_vector", seed),
                "core": plan.real_component(variant, seed) if is_r2m else None,
                "residuals": plan.residuals(variant, seed) if is_r2m else {},
                "statistics": plan.statistics(variant, seed),
                "heads": plan.specialists("head", seed),
                "initial_head": INITIAL_HEAD,
            },
            stage.paths(variant=variant, seed=seed),
            {"seed": int(seed)},
            modules=plan.method_modules([variant]),
        )

    folder = "results/merged/{variant}/seed{seed}"
    outputs = {"model": f"{folder}/model.safetensors", "report": f"{folder}/report.json"}
    stage = Stage("merge", outputs, job, plan.seeded(variant=plan.variants), memory=3000)
    return stage


def _per_specialist(plan: Plan, variants: list[str]) -> list[dict[str, str]]:
    """Return the wildcards of one job per variant, seed and specialist."""
    return [
        {"variant": variant, "seed": seed, "specialist": name}
        for variant in variants
        for seed in plan.seeds
        for name in plan.members
    ]
