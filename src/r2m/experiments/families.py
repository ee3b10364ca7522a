"""Per generator against per family: what specialists are trained on, and how they are merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments.experiment import (
    ROOT,
    Experiment,
    ExperimentOptions,
    Names,
    Variants,
    images_stages,
    merge_stage,
    protocol_series,
    protocol_titles,
    trained_specialists,
)
from r2m.merge import registry
from r2m.merge.variants import MergeVariant
from r2m.options import Positive, Section, nearest
from r2m.plan.stage import Job, Stage
from r2m.train.options import FinetuneOptions
from r2m.train.sampling.epochs import lengthened, sampler_of, total_steps

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from r2m.core_params import CoreParams
    from r2m.evaluate.bench import Bench
    from r2m.evaluate.tuned_merge import TunedMerge
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import Tensors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table
    from r2m.session_files import MergeParts, SessionFiles

GENERATORS, FAMILIES, BOTH, JOINT = "generators", "families", "both", "joint"
STRATEGIES = {
    GENERATORS: "a specialist a generator",
    FAMILIES: "a specialist a family",
    BOTH: "within families, then across",
    JOINT: "all generators at once",
}


class FamiliesOptions(ExperimentOptions):
    """Specialists of each generator merged, of each family, and both one after the other."""

    variants: Variants = Field(
        default=["weight_averaging", "task_arithmetic", "ties", "tsv_m", "r2m"],
        description="enabled merge variants, tuned anew with their own grids",
    )
    generators: Names = Field(
        default=[], description="unseen generators that are trained on here, so that families have several"
    )
    steps_factor: Positive = Field(
        default=1.0,
        description="times the steps of a generator's specialist, for one of a family; with finetune.epochs,"
        " times their mean",
    )
    joint: bool = Field(default=True, description="joint training on the same generators beside the merges")


def check(params: CoreParams, options: FamiliesOptions) -> Iterator[str]:
    """Yield generators that are not unseen ones, families of one, and merges of too few or too many."""
    key = "experiments.families"
    if not options.enabled:
        return
    if text := not_unseen(params, options.generators):
        yield f"{key}.generators: {text}"
        return
    families = family_generators(params, options)
    if all(len(names) == 1 for names in families.values()):
        yield (
            f"{key}.generators: no family has two generators that are trained on; expected unseen ones here"
        )
    counts = {len(names) for names in families.values() if len(names) > 1}
    counts |= {len(families), sum(map(len, families.values()))}
    for method in (
        registry.get(params.variants[name]) for name in options.variants if name in params.variants
    ):
        least, most = method.least_specialists, method.most_specialists
        if min(counts) < least or (most is not None and max(counts) > most):
            taken = ", ".join(map(str, sorted(counts)))
            yield f"{key}.variants: {method.name} does not take every number of specialists here ({taken})"


def not_unseen(params: CoreParams, names: Sequence[str]) -> str:
    """Say which of some generators, to be trained on here, is no unseen one; empty where all are."""
    unseen = [name for name, generator in params.generators.items() if generator.role == "unseen"]
    wrong = [name for name in names if name not in unseen]
    return f"{wrong[0]!r} is no unseen generator{nearest(wrong[0], unseen)}" if wrong else ""


def family_generators(params: CoreParams, options: FamiliesOptions) -> dict[str, list[str]]:
    """Return family → the generators that are trained on here."""
    return params.by_family([*params.train_generators, *options.generators])


def family_members(params: CoreParams, options: FamiliesOptions) -> dict[str, list[str]]:
    """Return specialist → its generators: one each, and families of several."""
    families = family_generators(params, options)
    alone = {name: [name] for names in families.values() for name in names}
    return alone | {family: names for family, names in families.items() if len(names) > 1}


def finetune_options(params: CoreParams, options: FamiliesOptions, specialist: str) -> FinetuneOptions:
    """Return the fine-tuning options of one specialist."""
    if specialist in params.generators:
        return params.generators[specialist].finetune.applied(params.finetune)
    members = family_generators(params, options)[specialist]
    return lengthened(params.finetune, options.steps_factor, len(members))


def reused(params: CoreParams, options: FamiliesOptions) -> dict[str, str]:
    """Return specialist → that of the main run which is the same training."""
    return {
        name: other
        for name, generators in family_members(params, options).items()
        for other, others in params.specialist_members.items()
        if generators == others and finetune_options(params, options, name) == params.finetune_options(other)
    }


class FamiliesPlan(Section):
    """Who is merged with what in the experiment `families`.

    families: family → its generators, each of which has a specialist by its name.
    specialists: family → the specialist trained on all of its generators.
    trainings: specialist → the options of its training; `joint` for joint training, where there is any.
    variants: merge variants with their grids.
    """

    families: dict[str, list[str]]
    specialists: dict[str, str]
    trainings: dict[str, FinetuneOptions]
    variants: dict[str, MergeVariant]

    @property
    def generators(self) -> list[str]:
        """All generators that are trained on."""
        return [name for names in self.families.values() for name in names]

    def trained_on(self, name: str) -> list[str]:
        """Return the generators of a specialist, or of `joint`."""
        if name == JOINT:
            return self.generators
        return [name] if name in self.generators else self.families[name]

    def used(self, strategy: str) -> list[str]:
        """Return the specialists (or `joint`) that a strategy needs."""
        if strategy == JOINT:
            return [JOINT]
        return list(self.specialists.values()) if strategy == FAMILIES else self.generators


def stages(plan: Plan, options: FamiliesOptions) -> Sequence[Stage]:
    """Return the fakes, trainings and task vectors that the main run lacks, and the scores."""
    from r2m.plan.training import MEMORY, trained_outputs

    params, folder = plan.params, ROOT / "families"
    families, members = family_generators(params, options), family_members(params, options)
    generators = [name for names in families.values() for name in names]
    main = reused(params, options)

    def sets(image_sets: Sequence[str]) -> SessionFiles:
        return more_files(plan, image_sets, options.generators)

    def train(member: str, seed: str, outputs: Mapping[str, Path]) -> Job:
        return plan.finetune_job(
            member,
            members[member],
            finetune_options(params, options, member),
            seed,
            outputs,
            files=sets(plan.training_sets(members[member])),
            state=f"families/{member}",
        )

    def train_jointly(seed: str) -> Job:
        return plan.finetune_job(
            JOINT,
            generators,
            params.joint_options(),
            seed,
            joint.paths(seed=seed),
            files=sets(plan.training_sets(generators)),
            state="families/joint",
        )

    def parts(part: str, seed: str) -> dict[str, Path]:
        return {
            name: plan.specialist(main[name], part, seed) if name in main else own.part(part, name, seed)
            for name in sorted(members)
        }

    def all_parts(seed: str) -> MergeParts:
        vectors, heads = parts("task_vector", seed), parts("head", seed)
        return replace(plan.parts(seed), task_vectors=vectors, heads=heads)

    fakes, trunk = more_images(plan, options.generators)
    own = trained_specialists(
        plan, "families", "member", [name for name in members if name not in main], train
    )
    joint = Stage(
        "families_joint",
        trained_outputs(f"{folder}/joint/seed{{seed}}"),
        train_jointly,
        [{"seed": seed} for seed in plan.seeds] if options.joint else [],
        memory=MEMORY,
        priority=10,
        place="experiments/families/joint",
    )
    trainings = {name: finetune_options(params, options, name) for name in members}
    merged_plan = FamiliesPlan(
        families=families,
        specialists={family: names[0] if len(names) == 1 else family for family, names in families.items()},
        trainings={**trainings, JOINT: params.joint_options()},
        variants={name: plan.tuned(name) for name in options.variants},
    )
    scored = merge_stage(
        plan,
        "families",
        options.variants,
        {"plan": merged_plan},
        memory=5000,
        tuned_here=True,
        files=sets(plan.sets),
        parts=all_parts,
        inputs=lambda seed: {"joint": joint.paths(seed=seed)["model"] if options.joint else None},
    )
    return [fakes, trunk, own.finetune, joint, own.task_vector, scored]


def more_images(plan: Plan, generators: Sequence[str]) -> tuple[Stage, Stage]:
    """Return the stages of fakes of unseen generators that are trained on, of all splits, and of the trunk.

    Their test images come out the same as in the main run.
    """

    def forge(generator: str, outputs: Mapping[str, Path]) -> Job:
        return plan.forge_job(generator, plan.fakes(generator, role="train"), outputs)

    return images_stages(plan, "families", generators, forge)


def more_files(plan: Plan, image_sets: Sequence[str], generators: Sequence[str]) -> SessionFiles:
    """Return what a session on image sets reads, those of `generators` as `more_images` makes them."""
    return plan.files(image_sets, ROOT / "families", generators)


def run(
    bench: Bench, variants: Sequence[Chosen], plan: FamiliesPlan, joint: Path | None = None
) -> pd.DataFrame:
    """Return the scores of every variant by every strategy, and of `joint` (a trained model) where given.

    Columns: variant, strategy, specialists and steps (how many there are of them in total), tuned, `KEPT` and
    logit.
    """
    import pandas as pd

    from r2m.models import checkpoint
    from r2m.train.rows import rows_of

    parts = []

    def steps_of(name: str) -> int:
        options = plan.trainings[name]
        if options.steps is not None:
            return options.steps
        fakes, reals = rows_of(bench.inputs, plan.trained_on(name), "train")
        return total_steps(options, sampler_of(options, fakes, reals, name=name, seed=0).epoch)

    def scored(variant: str, strategy: str, tensors: Tensors, head: Tensors, tuned: str) -> None:
        used = plan.used(strategy)
        parts.append(
            bench.scores(tensors, head)[[*KEPT, "logit"]].assign(
                variant=variant,
                strategy=strategy,
                specialists=len(used),
                steps=sum(map(steps_of, used)),
                tuned=tuned,
            )
        )

    for name, variant in plan.variants.items():
        for strategy in (GENERATORS, FAMILIES, BOTH):
            whole, tuned = merged(bench, plan, name, variant, strategy)
            scored(name, strategy, bench.updated(whole.update), whole.head, tuned)
    if joint is not None:
        scored(JOINT, JOINT, checkpoint.load(joint)[0], {}, "")
    columns = ["variant", "strategy", "specialists", "steps", "tuned", *KEPT, "logit"]
    scores = pd.concat(parts, ignore_index=True)[columns]
    scores.attrs["trained"] = ",".join(plan.generators)
    return scores


def merged(
    bench: Bench, plan: FamiliesPlan, name: str, variant: MergeVariant, strategy: str
) -> tuple[TunedMerge, str]:
    """Merge by one strategy, with options chosen on val; return these as text, too.

    In two levels the specialists of each family of several generators are merged first, with the options that
    are best on the val images of that family's generators. Then the results are merged like specialists, with
    the options that are best on the val images of all generators. The grid is the variant's own each time.
    """
    from r2m.evaluate.tuned_merge import TunedMerge, as_text, tuned_merge

    if strategy != BOTH:
        whole = tuned_merge(bench.only(plan.used(strategy)), name, variant, plan.generators)
        return whole, as_text(whole.chosen)
    within = {}
    for family, generators in plan.families.items():
        if len(generators) > 1:
            within[family] = tuned_merge(bench.only(generators), name, variant, generators)
        else:  # the only specialist is its family's already
            tensors = dict(bench.task_vectors[generators[0]]), dict(bench.heads[generators[0]])
            within[family] = TunedMerge(*tensors, {})
    across = replace(
        bench,
        task_vectors={family: merge.update for family, merge in within.items()},
        heads={family: merge.head for family, merge in within.items()},
    )
    whole = tuned_merge(across, name, variant, plan.generators)
    levels = {**{family: merge.chosen for family, merge in within.items()}, "across": whole.chosen}
    return whole, "; ".join(f"{level}: {as_text(chosen)}" for level, chosen in levels.items() if chosen)


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: one row per merge and strategy.

    `in distribution` means the generators trained on here, which are more than the context's.
    """
    from r2m.evaluate.experiment_means import protocol_means, read_notes, read_settings
    from r2m.report.table import Table

    trained = read_notes(source, "families", ["trained"])["trained"].split(",")
    generators = {
        name: generator.model_copy(update={"role": "train" if name in trained else "unseen"})
        for name, generator in context.generators.items()
    }
    by = ["variant", "strategy", "specialists", "steps"]
    known = context.model_copy(update={"generators": generators})
    means = protocol_means(read_settings(source, by), by, known)
    label = {JOINT: "Joint training"}
    means.insert(0, "merge", [label.get(name) or context.variant_label(name) for name in means["variant"]])
    means.insert(3, "training", means["strategy"].map(STRATEGIES))
    titles = protocol_titles(means)
    return Table(
        means,
        {
            "merge": "Merge",
            "training": "Specialists",
            "specialists": "Number",
            "steps": "Steps in total",
            **titles,
        },
        caption=(
            f"Specialists of each of {len(trained)} generators merged, specialists of each family merged, and"
            " both levels: specialists merged within their family, then across. Options are chosen on val for"
            " every row anew, with one grid; in two levels for each family on its own generators, then for"
            " all. A family's specialist sees the images of its generators in the steps that are given. Mean"
            " AUC over the generators trained on here, the others, and the other domains; best of a merge"
            " bold, second underlined."
        ),
        label="families",
        best=list(titles),
        section="variant",
    )


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw one row per strategy with its number of specialists, below the merge."""
    from r2m.report.figures.dots import dot_rows

    return dot_rows(
        list(table["merge"]),
        [
            f"{training} ({number})"
            for training, number in zip(table["training"], table["specialists"], strict=True)
        ],
        protocol_series(table),
        "Mean AUC; in brackets how many models were trained. Numbers: val, on which every row's options were"
        " chosen anew.",
    )


EXPERIMENT = Experiment(
    title="Specialists of generators and of families",
    caption=(
        "What specialists are trained on, and in how many steps they are merged: a specialist for each"
        " generator, one for each family (trained on the family's generators together), or those of the"
        " generators merged within their family and the results merged across."
        " `experiments.families.generators` are trained on beside the trained generators of the main run,"
        ' so "in distribution" covers more here than in the other tables and "unseen" fewer; their test'
        " images are those of the main run. Every row's options are chosen anew on val with the variant's"
        " own grid, which in two levels is searched once in every family (on its own generators) and once"
        " across: more candidates than the other rows have. Look at the number of models and training"
        " steps beside the AUC: a family's specialist sees several generators in the steps of one. Joint"
        " training on the same generators is the upper reference."
    ),
    options=FamiliesOptions,
    check=check,
    takes={"with_statistics": False, "of_all_specialists": False},
    stages=stages,
    table=table,
    figure=figure,
    order=9,
)
