"""The whole workflow that `params.yaml` asks for: stages of the default run, of experiments, and of DVC."""

from functools import cached_property
from pathlib import Path

from r2m.experiments import registry
from r2m.params import Params
from r2m.plan import images, merging, reporting, scoring, tracking, training
from r2m.plan.plan import RESULTS, Plan
from r2m.plan.stage import Captioned, Job, Stage
from r2m.plan.tracking import Tracked

# Below results, but made by no job, or kept for the next run.
UNMANAGED = ("logs", "benchmarks", ".state", "report.html", ".gitignore")


class Workflow:
    """All stages by name."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.plan = Plan(params)

    @cached_property
    def main(self) -> dict[str, Stage]:
        """The stages of the default run."""
        phases = (images, training, merging, scoring)
        stages = [stage for phase in phases for stage in phase.stages(self.plan)]
        stages += [*reporting.stages(self.plan, stages), tracking.members(self.plan)]
        return {stage.name: stage for stage in stages}

    @cached_property
    def experiments(self) -> dict[str, Stage]:
        """The stages of the experiments that are enabled: their own, and the table and figure of each."""
        stages: list[Stage] = []
        for name in self.params.experiments.enabled:
            own = registry.get(name).stages(self.plan, getattr(self.params.experiments, name))
            stages += [*own, self._table(name), self._figure(name)]
        return {stage.name: stage for stage in stages}

    @property
    def stages(self) -> dict[str, Stage]:
        """All stages."""
        return self.main | self.experiments

    @cached_property
    def reported(self) -> list[str]:
        """What the default run is for: tables, figures, cards and pages."""
        return [path for stage in self._shown for path in stage.artifacts()]

    @cached_property
    def paper(self) -> list[str]:
        """The tables and figures of the experiments."""
        names = [f"{what}_{name}" for name in self.params.experiments.enabled for what in ("table", "figure")]
        return [path for name in names for path in self.experiments[name].artifacts()]

    @cached_property
    def reporting(self) -> list[Stage]:
        """The stages that readers see the outputs of."""
        return [self.main[stage.name] for stage in reporting.stages(self.plan, ())]

    @cached_property
    def wildcards(self) -> dict[str, str]:
        """Wildcard → a pattern of its values."""
        values: dict[str, set[str]] = {}
        for stage in self.stages.values():
            for name in stage.wildcards:
                values.setdefault(name, set()).update(one[name] for one in stage.instances)
        return {name: "|".join(sorted(known)) or "[^/]+" for name, known in values.items()}

    @cached_property
    def code(self) -> Stage:
        """The digests by which DVC tells that a stage has to run again."""
        outputs = {name: f"results/code/{name}" for name in self.tracked}

        def job() -> Job:
            digests = {name: stage.digest for name, stage in self.tracked.items()}
            return Job("r2m.plan.tracking:write_digests", {}, {"out": RESULTS / "code"}, {"digests": digests})

        return Stage("code", outputs, job, is_benchmarked=False)

    @property
    def dvc_folders(self) -> list[str]:
        """Folders that stages of dvc.yaml put out, if only empty."""
        return tracking.folders(self.plan)

    @cached_property
    def tracked(self) -> dict[str, Tracked]:
        """The stages of dvc.yaml."""
        return tracking.tracked(self.plan, self.main, [stage.name for stage in self._shown])

    @property
    def _shown(self) -> list[Stage]:
        return [self.main["tables"], *self.reporting]

    def orphans(self, results: Path = RESULTS) -> list[Path]:
        """Return the files below `results` that no job makes, such as those of names that the params lost."""
        files: set[Path] = set()
        folders: set[Path] = set()
        for stage in (*self.stages.values(), self.code):
            for instance in stage.instances:
                for key, path in stage.paths(**instance).items():
                    (folders if key in stage.folders else files).add(path)
        kept = {results / name for name in UNMANAGED}
        return [
            path
            for path in sorted(results.rglob("*"))
            if not path.is_dir()
            and path not in files
            and kept.isdisjoint([path, *path.parents])
            and folders.isdisjoint(path.parents)
        ]

    def _table(self, name: str) -> Stage:
        """Return the stage of an experiment's table."""
        folder = RESULTS / "experiments" / name
        outputs = {suffix: f"{folder}/table.{suffix}" for suffix in ("csv", "md", "tex", "html")}

        def job() -> Job:
            return Job(
                "r2m.experiments.stages:table",
                {"sources": registry.get(name).sources(self.plan)},
                {"out": folder / "table"},
                {"experiment": name, "context": self.plan.experiment_context},
                modules=[f"r2m.experiments.{name}:table"],
            )

        labels = {"experiment": name, "what": "table"}
        return Stage(
            f"table_{name}",
            outputs,
            job,
            is_benchmarked=False,
            place=f"experiments/table_{name}",
            report={"html": Captioned("experiment", "Experiments", labels)},
            caption=registry.get(name).caption,
        )

    def _figure(self, name: str) -> Stage:
        """Return the stage of an experiment's figure."""
        folder = RESULTS / "experiments" / name

        def job() -> Job:
            return Job(
                "r2m.experiments.stages:figure",
                {"table": folder / "table.csv"},
                {"out": folder / "figure"},
                {"experiment": name, "context": self.plan.experiment_context},
                modules=[f"r2m.experiments.{name}:figure"],
            )

        labels = {"experiment": name, "what": "figure"}
        return Stage(
            f"figure_{name}",
            reporting.figure_files(f"{folder}/figure"),
            job,
            is_benchmarked=False,
            place=f"experiments/figure_{name}",
            report={"svg": Captioned("experiment", "Experiments", labels)},
            caption=registry.get(name).caption,
        )
