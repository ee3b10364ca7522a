"""What an experiment declares about itself, and what several of them share; without torch and pandas."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from r2m.merge import registry
from r2m.options import Name, Section, each_once, nearest
from r2m.plan.stage import Job, Stage
from r2m.session_files import MergeParts, SessionFiles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from r2m.core_params import CoreParams
    from r2m.evaluate.protocols import EvaluationContext
    from r2m.plan.plan import Plan
    from r2m.report.figures.dots import Series
    from r2m.report.table import Table

ROOT = Path("results/experiments")


def _at_least_one(names: list[str]) -> list[str]:
    if not names:
        raise ValueError("expected at least one")
    return names


Names = Annotated[list[Name], AfterValidator(each_once)]
Variants = Annotated[Names, AfterValidator(_at_least_one)]
# Dotted option → its values.
Factors = dict[str, Annotated[list[Any], Field(min_length=1), AfterValidator(each_once)]]


class ExperimentOptions(Section):
    """One experiment of `snakemake paper`."""

    enabled: bool = Field(default=False, description="whether `snakemake paper` runs it")


def _nothing_wrong(params: CoreParams, options: Any) -> Iterator[str]:
    yield from ()


def _of_the_run(plan: Plan, options: Any) -> Sequence[str]:
    return plan.seeds


@dataclass(frozen=True)
class Experiment:
    """An experiment: its options in params.yaml, its jobs, and the table and the figure of what they compute.

    title, caption: what the report says of it, the caption in reStructuredText on one line.
    options: the section `experiments.<name>`.
    stages: the jobs of a plan up to the scores; the table and the figure follow by themselves.
    table: reads one file that `reads` names, and gives the table of it.
    figure: draws the table's CSV.
    check: yields what is wrong with the options beside the rest of params.yaml, each text beginning with the
        key; called whether or not the experiment is enabled.
    takes: which merge variants the option `variants` may name, as keywords of `wrong_variants`.
    reads: pattern of the files that the table is made of, one per seed where `{seed}` stands in it.
    seeds: the seeds of training that the table is of, by default those of the run.
    order: place among the experiments in params.yaml and in the report, by name where it is the same.
    """

    title: str
    caption: str
    options: type[ExperimentOptions]
    stages: Callable[[Plan, Any], Sequence[Stage]]
    table: Callable[[Path, EvaluationContext], Table]
    figure: Callable[[pd.DataFrame, EvaluationContext], Figure]
    check: Callable[[CoreParams, Any], Iterator[str]] = _nothing_wrong
    takes: Mapping[str, bool] = field(default_factory=dict)
    reads: str = "results/experiments/{name}/seed{seed}/scores.parquet"
    seeds: Callable[[Plan, Any], Sequence[str]] = _of_the_run
    order: int = 100
    name: str = ""

    def sources(self, plan: Plan, options: Any) -> list[Path]:
        """Return the files that the table is made of."""
        seeds = self.seeds(plan, options)
        paths = [Path(self.reads.format(name=self.name, seed=seed)) for seed in seeds]
        return list(dict.fromkeys(paths))

    def inconsistencies(self, params: CoreParams, options: Any) -> Iterator[str]:
        """Yield what is wrong with the options beside the rest of params.yaml."""
        yield from self.check(params, options)
        if options.enabled and hasattr(options, "variants"):
            key = f"experiments.{self.name}.variants"
            yield from wrong_variants(params, key, options.variants, **self.takes)


def scores_stage(plan: Plan, name: str, job: Callable[..., Job], memory: int, **outputs: str) -> Stage:
    """Return the stage of an experiment's scores, one job per seed; `outputs` are files beside them."""
    folder = f"{ROOT}/{name}/seed{{seed}}"
    paths = {key: f"{folder}/{file}" for key, file in {"scores": "scores.parquet", **outputs}.items()}
    seeds = [{"seed": seed} for seed in plan.seeds]
    return Stage(name, paths, job, seeds, memory=memory, place=f"experiments/{name}")


def merge_stage(
    plan: Plan,
    name: str,
    variants: Iterable[str],
    values: Mapping[str, Any] | Callable[[str], Mapping[str, Any]],
    memory: int,
    *,
    tuned_here: bool = False,
    files: SessionFiles | None = None,
    parts: Callable[[str], MergeParts] | None = None,
    inputs: Callable[[str], Mapping[str, Any]] = lambda seed: {},
    **outputs: str,
) -> Stage:
    """Return the stage of an experiment on merges, one job per seed.

    Its scores are what `run(bench, variants, …)` of the experiment's module returns. Keywords of `run` are
    `values`, `inputs` (files) and `outputs` (files beside the scores), the first two by seed. The bench holds
    the main run's images and specialists, or `files` and `parts`. `variants` come with the options that the
    main run chose for them, or not at all where they are `tuned_here`.
    """

    def job(seed: str) -> Job:
        return merge_job(
            plan,
            name,
            stage.paths(seed=seed),
            values(seed) if callable(values) else values,
            parts=(parts or plan.parts)(seed),
            modules=plan.method_modules(variants),
            files=files,
            chosen=[] if tuned_here else [plan.chosen(variant, seed) for variant in variants],
            inputs=inputs(seed),
        )

    stage = scores_stage(plan, name, job, memory, **outputs)
    return stage


def merge_job(
    plan: Plan,
    name: str,
    outputs: Mapping[str, Path],
    values: Mapping[str, Any],
    *,
    parts: MergeParts,
    modules: Iterable[str],
    files: SessionFiles | None = None,
    chosen: Sequence[Path] = (),
    inputs: Mapping[str, Any] | None = None,
) -> Job:
    """Return a job that writes what `run` of an experiment's module returns as `outputs["scores"]`.

    `modules` are those of the merging methods; the other arguments are those of `merge_stage`, of one seed.
    """
    beside = {key: path for key, path in outputs.items() if key != "scores"}
    return Job(
        "r2m.experiments.stages:run",
        {
            "files": files or plan.files(plan.sets),
            "parts": parts,
            "chosen": chosen,
            "inputs": inputs or {},
        },
        {"scores": outputs["scores"], "outputs": beside},
        {"experiment": name, "compute": plan.compute, "values": values},
        modules=[f"r2m.experiments.{name}:run", *modules],
    )


def images_stages(
    plan: Plan, name: str, generators: Sequence[str], forge: Callable[..., Job], also: Sequence[str] = ()
) -> tuple[Stage, Stage]:
    """Return the stages of fakes made anew in an experiment's folder, and of the trunk's pass over them.

    `forge(generator, outputs)` is the job of one generator. The trunk runs over the image sets `also`, too.
    """
    from r2m.plan.images import forged_outputs

    folder = ROOT / name

    def make(generator: str) -> Job:
        return forge(generator, fakes.paths(generator=generator))

    def activate(set: str, stage: str = "forged") -> Job:
        return plan.trunk_job(plan.manifest(set, folder), plan.trunk(set, folder))

    sets = [{"set": each} for each in generators]
    if also:
        sets = [{"stage": plan.folder(each).parent.name, "set": each} for each in (*also, *generators)]
    stage = "{stage}" if also else "forged"
    fakes = Stage(
        f"{name}_forge",
        forged_outputs(f"{folder}/forged/{{generator}}"),
        make,
        [{"generator": generator} for generator in generators],
        folders=frozenset({"images"}),
        memory=1500,
        place=f"experiments/{name}/forge",
    )
    trunk = Stage(
        f"{name}_trunk",
        {"activations": f"{folder}/trunk/{stage}/{{set}}/activations.safetensors"},
        activate,
        sets if plan.has_trunk else [],
        memory=2000,
        place=f"experiments/{name}/trunk",
    )
    return fakes, trunk


@dataclass(frozen=True)
class Specialists:
    """Specialists that an experiment trains, and the stages that train them and subtract the base."""

    finetune: Stage
    task_vector: Stage
    wildcard: str

    def part(self, part: str, name: str, seed: str) -> Path:
        """Return one file of a specialist: its task_vector or head."""
        return self.task_vector.paths(**{self.wildcard: name, "seed": seed})[part]

    def parts(self, names: Iterable[str], seed: str) -> MergeParts:
        """Return task vectors and heads of several, of one seed."""
        from r2m.plan.plan import INITIAL_HEAD

        vectors, heads = (
            {name: self.part(part, name, seed) for name in sorted(names)} for part in ("task_vector", "head")
        )
        return MergeParts(vectors, heads, INITIAL_HEAD)


def trained_specialists(
    plan: Plan, experiment: str, wildcard: str, names: Sequence[str], train: Callable[..., Job]
) -> Specialists:
    """Return the specialists `names` of an experiment; `train(name, seed, outputs)` is the job of one."""
    from r2m.plan.training import MEMORY, task_vector_outputs, trained_outputs

    folder = f"{ROOT}/{experiment}/specialists/{{{wildcard}}}/seed{{seed}}"
    instances = plan.seeded(**{wildcard: names})

    def tune(seed: str, **name: str) -> Job:
        return train(name[wildcard], seed, finetune.paths(seed=seed, **name))

    def subtract(**wildcards: str) -> Job:
        return plan.task_vector_job(finetune.paths(**wildcards)["model"], task_vector.paths(**wildcards))

    finetune = Stage(
        f"{experiment}_finetune",
        trained_outputs(folder),
        tune,
        instances,
        memory=MEMORY,
        place=f"experiments/{experiment}/finetune",
    )
    task_vector = Stage(
        f"{experiment}_task_vector",
        task_vector_outputs(folder),
        subtract,
        instances,
        memory=2000,
        place=f"experiments/{experiment}/task_vector",
    )
    return Specialists(finetune, task_vector, wildcard)


def wrong_variants(
    params: CoreParams,
    key: str,
    names: Collection[str],
    *,
    of_r2m: bool = False,
    with_statistics: bool = True,
    of_all_specialists: bool = True,
    enabled: bool = True,
) -> Iterator[str]:
    """Yield what is wrong with merge variants that stand under a key of params.yaml.

    of_r2m: only merges by R²M are taken. with_statistics: so are merges whose methods need statistics of the
    training data. of_all_specialists: every merge is of all specialists, so that its head can be that of one.
    enabled: only merges that are switched on are taken.
    """
    every = {name: variant.method or name for name, variant in params.merge.methods.items()}
    known = params.variants if enabled else every
    for name in names:
        if name not in every and not enabled:
            yield f"{key}: no merge is called {name!r}{nearest(name, every)}"
        elif name not in known:
            yield f"{key}: {params.merge.why_not(name)}"
        elif of_r2m and known[name] != "r2m":
            yield f"{key}: {name!r} is a merge by {known[name]}; expected one of the method r2m"
        elif not with_statistics and registry.get(known[name]).statistics is not None:
            yield f"{key}: {name!r} needs statistics of the training data, which are not made here"
        elif not of_all_specialists and params.merge.methods[name].head.startswith("specialist:"):
            yield f"{key}: {name!r} takes the head of a specialist that is not in every merge here"


def protocol_titles(means: pd.DataFrame) -> dict[str, str]:
    """Return the headings of val and of the protocols that a table of settings has."""
    from r2m.evaluate.experiment_means import TITLES

    return {key: title for key, title in TITLES.items() if key in means}


def protocol_series(table: pd.DataFrame) -> list[Series]:
    """Return a series of dots for val and each protocol of a table of settings."""
    from r2m.report.figures.dots import PROTOCOL_COLOURS, PROTOCOL_MARKS, Series

    return [
        Series(title, table[key].tolist(), PROTOCOL_COLOURS[key], *PROTOCOL_MARKS[key])
        for key, title in protocol_titles(table).items()
    ]


def image_handles(kinds: Iterable[str], **looks: Any) -> list[Line2D]:
    """Return the entries of a legend for kinds of images."""
    from matplotlib.lines import Line2D

    from r2m.evaluate.image_kinds import IMAGE_KINDS
    from r2m.report.figures.style import IMAGE_COLOURS, IMAGE_MARKERS

    return [
        Line2D(
            [], [], label=IMAGE_KINDS[kind], color=IMAGE_COLOURS[kind], marker=IMAGE_MARKERS[kind], **looks
        )
        for kind in kinds
    ]


def name_row(axes: Axes, y: float, text: str, distance: float, **looks: Any) -> None:
    """Write the name of a row to the left of a panel, in shares of whose width `distance` is."""
    axes.text(-distance, y, text, transform=axes.get_yaxis_transform(), ha="right", va="center", **looks)
