"""Stages of training: specialists, joint models, the linear probe, and task vectors."""

from r2m.plan.plan import JOINT, PROBE, Plan
from r2m.plan.stage import Job, Stage

MEMORY = 2500


def stages(plan: Plan) -> list[Stage]:
    """Return the stages of a plan that train models."""
    return [
        finetune(plan),
        joint(plan),
        probe(plan),
        task_vector(plan),
    ]


def trained_outputs(folder: str) -> dict[str, str]:
    """Return what a training writes into a folder."""
    return {"model": f"{folder}/model.safetensors", "history": f"{folder}/history.csv"}


def task_vector_outputs(folder: str) -> dict[str, str]:
    """Return what the subtraction of the base writes into a folder."""
    return {"task_vector": f"{folder}/task_vector.safetensors", "head": f"{folder}/head.safetensors"}


def finetune(plan: Plan) -> Stage:
    """Fine-tune one specialist per generator or family."""

    def job(specialist: str, seed: str) -> Job:
        options = plan.params.finetune_options(specialist)
        outputs = stage.paths(specialist=specialist, seed=seed)
        return plan.finetune_job(specialist, plan.members[specialist], options, seed, outputs)

    outputs = trained_outputs("results/specialists/{specialist}/seed{seed}")
    stage = Stage("finetune", outputs, job, plan.seeded(specialist=plan.members), memory=MEMORY)
    return stage


def joint(plan: Plan) -> Stage:
    """Train one model on all generators."""

    def job(seed: str) -> Job:
        options = plan.params.joint_options()
        return plan.finetune_job(JOINT, plan.trained, options, seed, stage.paths(seed=seed))

    # The longest job: it begins first.
    seeds = [{"seed": seed} for seed in plan.seeds]
    outputs = trained_outputs(f"results/{JOINT}/seed{{seed}}")
    stage = Stage(JOINT, outputs, job, seeds, memory=MEMORY, priority=10)
    return stage


def probe(plan: Plan) -> Stage:
    """Fit a linear probe to the base's features."""

    def job() -> Job:
        return Job(
            "r2m.train.stages:probe",
            {"files": plan.files(plan.training_sets(plan.trained))},
            {"head": PROBE},
            {"generators": plan.trained, "compute": plan.compute},
        )

    return Stage("probe", {"head": str(PROBE)}, job, memory=MEMORY)


def task_vector(plan: Plan) -> Stage:
    """Subtract the base from each specialist, and put its head aside."""

    def job(specialist: str, seed: str) -> Job:
        model = plan.specialist(specialist, "model", seed)
        return plan.task_vector_job(model, stage.paths(specialist=specialist, seed=seed))

    outputs = task_vector_outputs("results/specialists/{specialist}/seed{seed}")
    stage = Stage("task_vector", outputs, job, plan.seeded(specialist=plan.members), memory=2000)
    return stage
