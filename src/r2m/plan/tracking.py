"""What DVC tracks: the jobs behind each of its stages, and digests of them and of training images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from r2m.digest import code_digest
from r2m.files import write_text
from r2m.options import FAMILIES
from r2m.plan.plan import POOL, RESULTS, Plan
from r2m.plan.stage import Job, Stage

# No generator can have this name.
SCORED = "all-images"


@dataclass(frozen=True)
class Tracked:
    """The jobs of one stage of dvc.yaml; a stage that the params leave out has none."""

    jobs: tuple[tuple[Stage, Mapping[str, str]], ...]

    @property
    def files(self) -> list[str]:
        """What the jobs write."""
        return [str(path) for stage, wildcards in self.jobs for path in stage.paths(**wildcards).values()]

    @property
    def digest(self) -> str:
        """A digest of the code of the jobs; that of none does not change when code does."""
        code = {target for stage, wildcards in self.jobs for target in stage.code(**wildcards)}
        return code_digest(sorted(code)) if code else "none"


def tracked(plan: Plan, stages: Mapping[str, Stage], reported: Iterable[str]) -> dict[str, Tracked]:
    """Return the stages of dvc.yaml, `NAME` or `NAME-KEY`, with their jobs."""

    def jobs(*names: str, **chosen: str) -> Tracked:
        return Tracked(
            tuple(
                (stages[name], wildcards)
                for name in names
                for wildcards in stages[name].instances
                if all(wildcards.get(key) == value for key, value in chosen.items())
            )
        )

    merging = ("statistics", "tune", "real_component", "residual", "merge")
    reference = Tracked(
        (*jobs("score_base").jobs, *jobs("score", kind="joint").jobs),
    )
    return {
        "sources": jobs("source"),
        "base": jobs("base"),
        "pool": jobs("pool"),
        "members": jobs("members"),
        "slices": jobs("slice", "no_slices"),
        "joint": jobs("probe", "joint"),
        "reference_scores": reference,
        "report": jobs(*reported),
        **{f"validate-{name}": jobs("validate", dataset=name) for name in plan.params.datasets},
        **{f"faces-{name}": jobs("faces", domain=name) for name in plan.domains},
        **{f"forge-{name}": jobs("forge", generator=name) for name in plan.generators},
        **{f"trunk-{name}": jobs("trunk", set=name) for name in plan.sets},
        **{
            f"specialist-{name}": jobs("finetune", "task_vector", specialist=name)
            for name in [*plan.generators, *FAMILIES]
        },
        **{
            f"specialist_scores-{name}": jobs("score", kind="specialist", model=name)
            for name in [*plan.generators, *FAMILIES]
        },
        **{f"merge-{name}": jobs(*merging, variant=name) for name in plan.params.merge.methods},
        **{
            f"merge_scores-{name}": jobs("score", kind="merge", model=name)
            for name in plan.params.merge.methods
        },
    }


def trained_on(plan: Plan) -> dict[str, list[str]]:
    """Return model → the generators that it is trained on, for all models that dvc.yaml knows."""
    members = {name: plan.members.get(name, []) for name in [*plan.generators, *FAMILIES]}
    return {**members, "joint": plan.trained}


def members(plan: Plan) -> Stage:
    """Digest the images that each model is trained on: a new image set retrains only what it belongs to.

    One more digest is of the images that all models score, since DVC would list the files of all image sets
    for each of them.
    """

    def read(sets: Iterable[str]) -> list[Path]:
        images = [plan.trunk(name) if plan.has_trunk else plan.folder(name) / "images" for name in sets]
        return [*(plan.manifest(name) for name in sets), *images]

    def job() -> Job:
        return Job(
            "r2m.data.stages:members",
            {"models": {name: read(sets) for name, sets in names.items()}},
            {"out": RESULTS / "members"},
            {},
            also=read(plan.sets),
        )

    trained = {name: plan.training_sets(generators) for name, generators in trained_on(plan).items()}
    names = {**trained, SCORED: list(plan.sets)}
    outputs = {name: f"results/members/{name}.json" for name in names}
    return Stage("members", outputs, job, is_benchmarked=False)


def slices(plan: Plan) -> Stage:
    """Digest the slices of its data set that an image set is made of, once these are validated.

    The image set is made again when this file changes. It is written only where it would change, so that
    neither a new index nor another report makes all of them again.
    """

    def job(set: str) -> Job:
        dataset = plan.params.dataset_of[set]
        options = plan.taken(dataset)
        return Job(
            "r2m.datasets.stages:slice_digest",
            {},
            {"digest": plan.slice_digest(set)},
            {"options": options, "parts": plan.params.parts_of(set)},
            also=[RESULTS / f"validation/{dataset}/report.json"],
            settled=[Path(options.index)],
        )

    sets = [{"set": name} for name in plan.params.dataset_of]
    return Stage("slice", {"digest": "results/slices/{set}"}, job, sets, is_benchmarked=False)


def no_slices(plan: Plan) -> Stage:
    """Note which image sets are of no data set: DVC asks for a digest of every one."""
    names = [name for name in plan.sets if name not in plan.params.dataset_of]

    def job() -> Job:
        return Job("r2m.datasets.stages:no_slices", {}, {"out": RESULTS / "slices"}, {"names": names})

    outputs = {name: f"results/slices/{name}" for name in names} or {"none": "results/slices/.none"}
    instances: list[dict[str, str]] = [{}] if names else []
    return Stage("no_slices", outputs, job, instances, is_benchmarked=False)


def folders(plan: Plan) -> list[str]:
    """Return the folders that stages of dvc.yaml put out, where the params may leave nothing to be made."""
    trained = [*plan.generators, *FAMILIES]
    merged = ("statistics", "tune", "real", "residuals", "merged", "scores/merge")
    return [
        "data/raw",
        str(POOL.parent),
        str(RESULTS / "joint"),
        *(str(RESULTS / "validation" / name) for name in plan.params.datasets),
        *(str(plan.trunk(name).parent) for name in plan.sets),
        *(str(RESULTS / folder / name) for folder in merged for name in plan.params.merge.methods),
        *(
            str(RESULTS / folder / name)
            for folder in ("specialists", "scores/specialist")
            for name in trained
        ),
    ]


def write_digests(*, digests: Mapping[str, str], out: Path) -> None:
    """Write one file per stage of dvc.yaml."""
    for name, digest in digests.items():
        write_text(out / name, f"{digest}\n")
