"""The whole workflow that `params.yaml` asks for: stages of the default run, of experiments, and of DVC."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from r2m.experiments import registry
from r2m.params import Params
from r2m.plan import images, merging, reporting, scoring, tracking, training
from r2m.plan.plan import RESULTS, Plan
from r2m.plan.stage import Captioned, Job, Stage
from r2m.plan.tracking import Tracked

# Below results, but made by no job, or kept for the next run.
UNMANAGED = ("logs", "benchmarks", ".state", "report.html", ".gitignore", "validation/.gitignore")


class Workflow:
    """All stages by name."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.plan = Plan(params)

    @cached_property
    def main(self) -> dict[str, Stage]:
        """The stages of the default run."""
        noting = (tracking.slices, tracking.no_slices, tracking.members)
        stages = [*self._computing, *self.reporting, *(stage(self.plan) for stage in noting)]
        return {stage.name: stage for stage in stages}

    @cached_property
    def _computing(self) -> list[Stage]:
        phases = (images, training, merging, scoring)
        return [stage for phase in phases for stage in phase.stages(self.plan)]

    @cached_property
    def experiments(self) -> dict[str, Stage]:
        """The stages of the experiments that are enabled: their own, and the table and figure of each."""
        stages: list[Stage] = []
        for name in self.params.experiments.enabled:
            options = self.params.experiments.of(name)
            own = registry.get(name).stages(self.plan, options)
            folder = RESULTS / "experiments" / name
            tables = {suffix: f"{folder}/table.{suffix}" for suffix in ("csv", "md", "tex", "html")}
            figures = reporting.figure_files(f"{folder}/figure")
            sources = {"sources": registry.get(name).sources(self.plan, options)}
            stages += [
                *own,
                self._shown_of(name, "table", sources, tables, "html"),
                self._shown_of(name, "figure", {"table": folder / "table.csv"}, figures, "svg"),
            ]
        return {stage.name: stage for stage in stages}

    @property
    def stages(self) -> dict[str, Stage]:
        """All stages."""
        return self.main | self.experiments

    @cached_property
    def reported(self) -> list[str]:
        """What the default run is for: tables, figures, cards and pages, and reports on data sets."""
        return [path for stage in (*self._shown, self.main["validate"]) for path in stage.artifacts()]

    @cached_property
    def paper(self) -> list[str]:
        """The tables and figures of the experiments: what stages are called after."""
        shown = [stage for name, stage in self.experiments.items() if name.startswith(("table_", "figure_"))]
        return [path for stage in shown for path in stage.artifacts()]

    @cached_property
    def reporting(self) -> list[Stage]:
        """The stages that readers see the outputs of."""
        return reporting.stages(self.plan, self._computing)

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
            if (path.is_symlink() or not path.is_dir())
            and path not in files
            and kept.isdisjoint([path, *path.parents])
            and folders.isdisjoint(path.parents)
        ]

    def untracked(self) -> list[Path]:
        """Return the orphans in folders that DVC takes whole, so that a clone could not restore those."""
        tracked = [file for stage in self.tracked.values() for file in stage.files]
        whole = {Path(path).parts[:2] for path in (*tracked, *self.dvc_folders)}
        return [path for path in self.orphans() if path.parts[:2] in whole]

    def _shown_of(
        self,
        name: str,
        what: str,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, str],
        reported: str,
    ) -> Stage:
        """Return the stage of an experiment's table or figure; its output `reported` is in the report."""

        experiment = registry.get(name)

        def job() -> Job:
            return Job(
                f"r2m.experiments.stages:{what}",
                inputs,
                {"out": RESULTS / "experiments" / name / what},
                {"experiment": name, "context": self.plan.experiment_context},
                modules=[f"r2m.experiments.{name}:{what}"],
            )

        return Stage(
            f"{what}_{name}",
            outputs,
            job,
            is_benchmarked=False,
            place=f"experiments/{what}_{name}",
            report={
                reported: Captioned(
                    "experiment", "Experiments", {"experiment": experiment.title, "what": what}
                )
            },
            caption=experiment.caption,
        )
