"""Which merge that needs no data is best: all of them tuned alike, for the run's specialists and for more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, ValidationError

from r2m.errors import R2MError
from r2m.evaluate.protocols import IN_DISTRIBUTION, KEPT, PROTOCOLS, UNSEEN_GENERATOR, EvaluationContext
from r2m.experiments.experiment import (
    ROOT,
    Experiment,
    ExperimentOptions,
    Names,
    merge_job,
    protocol_titles,
    scores_stage,
    trained_specialists,
)
from r2m.experiments.families import more_files, more_images, not_unseen
from r2m.merge import registry
from r2m.merge.variants import MergeVariant, rank_beyond
from r2m.options import Section, Seed, combinations, each_once, same_label, with_dotted
from r2m.plan.stage import Job, Stage
from r2m.session_files import MergeParts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    from r2m.core_params import CoreParams
    from r2m.evaluate.bench import Bench
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import Tensors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table
    from r2m.train.options import FinetuneOptions

# No merge can have either name.
JOINT, ENSEMBLE = "joint", "mean-logit"
REFERENCES = {JOINT: "Joint training", ENSEMBLE: "Ensemble of the specialists"}
SETTING = ["variant", "method", "specialists", "tuned", "cpu_seconds"]

ROW, HEADING, MARGIN, PANEL, NUMBER, GAP = 0.19, 0.26, 0.12, 2.3, 0.4, 0.22
LABEL_SIZE, NUMBER_SIZE = 7.5, 6.5
MARKS = {IN_DISTRIBUTION: ("o", True), UNSEEN_GENERATOR: ("^", False)}
SHORT = {IN_DISTRIBUTION: "in dist.", UNSEEN_GENERATOR: "unseen"}


class MethodsOptions(ExperimentOptions):
    """All merges that need no data, for the run's specialists and for more, in several trainings."""

    variants: Names = Field(
        default=[],
        description="merge variants, enabled or not; []: all that need no statistics and take every number of"
        " specialists here",
    )
    generators: Names = Field(
        default=[],
        description="unseen generators that are trained on here beside the run's, for the larger number of"
        " specialists; []: none",
    )
    seeds: Annotated[list[Seed], AfterValidator(each_once)] = Field(
        default=[], description="seeds of training; []: those of the run"
    )


def check(params: CoreParams, options: MethodsOptions) -> Iterator[str]:
    """Yield generators that are not unseen ones or not those of `families`, and merges that do not fit."""
    key = "experiments.methods"
    if not options.enabled:
        return
    if text := not_unseen(params, options.generators):
        yield f"{key}.generators: {text}"
        return
    # The core knows nothing of experiments; these are checked with all of the params.
    families = getattr(params, "experiments", None)
    others = families.families.generators if families and families.families.enabled else []
    if options.generators and others and set(options.generators) != set(others):
        yield (
            f"{key}.generators: experiments.families.generators are others ({', '.join(others)});"
            " expected the same ones, whose fakes are made once, or one of the two lists empty"
        )
    for name in options.variants:
        if name in params.merge.methods and (text := misfit(params, options, name)):
            yield f"{key}.variants: {name!r}: {text}"
            return
    names = merged_variants(params, options)
    if not names:
        yield f"{key}.variants: no merge needs no statistics and takes every number of specialists here"
    known = {name: params.merge.methods[name] for name in names if name in params.merge.methods}
    yield from same_label("merge.methods", {name: one.label or name for name, one in known.items()})


def trained_generators(params: CoreParams, options: MethodsOptions) -> list[list[str]]:
    """Return the generators that are trained on, once for every number of specialists."""
    run = params.train_generators
    more = [name for name in params.generators if name in run or name in options.generators]
    return [run, more] if options.generators else [run]


def merged_variants(params: CoreParams, options: MethodsOptions) -> list[str]:
    """Return the merge variants of the experiment."""
    return options.variants or [
        name
        for name, variant in params.merge.methods.items()
        if registry.get(variant.method or name).statistics is None
        and not variant.head.startswith("specialist:")
        and not misfit(params, options, name)
    ]


def misfit(params: CoreParams, options: MethodsOptions, name: str) -> str:
    """Say why a merge variant does not take every number of specialists here; empty where it does."""
    counts = [len(generators) for generators in trained_generators(params, options)]
    variant = params.merge.methods[name]
    method = registry.get(variant.method or name)
    for count in counts:
        for candidate in combinations(variant.tune):
            try:
                complete = method.options.model_validate(with_dotted(variant.options, candidate))
                method.check_count(complete, count)
            except ValidationError:
                return ""  # told of the merge itself
            except R2MError as error:
                return str(error)
            if text := rank_beyond(complete, count):
                return text
    return ""


def reference_of(params: CoreParams, variants: Sequence[str]) -> str:
    """Return the merge that others are tested against: the run's, else the first by R²M, else the first."""
    by_r2m = [name for name in variants if (params.merge.methods[name].method or name) == "r2m"]
    of_the_run = [name for name in variants if name == params.reference]
    return [*of_the_run, *by_r2m, *variants][0]


def specialist_options(params: CoreParams, generator: str) -> FinetuneOptions:
    """Return the fine-tuning options of a generator's own specialist."""
    return params.generators[generator].finetune.applied(params.finetune)


def of_the_run(params: CoreParams) -> dict[str, str]:
    """Return generator → its specialist in the main run, where that is the same training."""
    return {
        generators[0]: name
        for name, generators in params.specialist_members.items()
        if len(generators) == 1 and params.finetune_options(name) == specialist_options(params, generators[0])
    }


class MethodsPlan(Section):
    """What a job of the experiment `methods` merges.

    generators: those trained on, once for every number of specialists; each has a specialist by its name.
    variants: merge variants with their grids.
    """

    generators: list[list[str]]
    variants: dict[str, MergeVariant]


def seeds(plan: Plan, options: MethodsOptions) -> list[str]:
    """Return the seeds of training."""
    return [str(seed) for seed in options.seeds] or plan.seeds


def stages(plan: Plan, options: MethodsOptions) -> Sequence[Stage]:
    """Return the fakes, trainings and task vectors that the main run lacks, and the scores.

    Each merge and seed is a job of its own, so that a new method leaves the others as they are. Fakes of more
    generators are those of the experiment `families`, whose two stages are returned where there are any.
    """
    from r2m.plan.plan import INITIAL_HEAD, Plan
    from r2m.plan.training import MEMORY, trained_outputs

    params, folder = plan.params, ROOT / "methods"
    seeded = Plan(params.model_copy(update={"seeds": list(map(int, seeds(plan, options)))}))
    several, main = trained_generators(params, options), of_the_run(params)
    variants = merged_variants(params, options)

    def is_made(generator: str, seed: str) -> bool:
        return generator in main and seed in plan.seeds

    def is_made_jointly(number: str, seed: str) -> bool:
        return number == str(len(plan.trained)) and seed in plan.seeds

    def train(generator: str, seed: str, outputs: Mapping[str, Path]) -> Job:
        return plan.finetune_job(
            generator,
            [generator],
            specialist_options(params, generator),
            seed,
            outputs,
            files=more_files(plan, plan.training_sets([generator]), options.generators),
            state=f"methods/{generator}",
        )

    def train_jointly(number: str, seed: str) -> Job:
        generators = next(names for names in several if str(len(names)) == number)
        return plan.finetune_job(
            JOINT,
            generators,
            params.joint_options(),
            seed,
            joint.paths(number=number, seed=seed),
            files=more_files(plan, plan.training_sets(generators), options.generators),
            state=f"methods/joint/{number}",
        )

    def joint_model(number: str, seed: str) -> Path:
        if is_made_jointly(number, seed):
            return plan.model("joint", JOINT, seed)
        return joint.paths(number=number, seed=seed)["model"]

    def parts(seed: str) -> MergeParts:
        vectors, heads = (
            {
                name: plan.specialist(main[name], part, seed)
                if is_made(name, seed)
                else own.part(part, name, seed)
                for name in sorted(several[-1])
            }
            for part in ("task_vector", "head")
        )
        return MergeParts(vectors, heads, INITIAL_HEAD)

    def scored(names: Sequence[str], models: Sequence[Path], outputs: Mapping[str, Path], seed: str) -> Job:
        merged = {name: plan.tuned(name) for name in names}
        return merge_job(
            plan,
            "methods",
            outputs,
            {"plan": MethodsPlan(generators=several, variants=merged)},
            parts=parts(seed),
            modules=[f"r2m.merge.methods.{variant.method or name}" for name, variant in merged.items()],
            files=more_files(plan, plan.sets, options.generators),
            inputs={"joint": models},
        )

    def merge(variant: str, seed: str) -> Job:
        return scored([variant], [], merges.paths(variant=variant, seed=seed), seed)

    def refer(seed: str) -> Job:
        models = [joint_model(str(len(names)), seed) for names in several]
        return scored([], models, references.paths(seed=seed), seed)

    def gather(seed: str) -> Job:
        made = [merges.paths(variant=name, seed=seed)["scores"] for name in variants]
        return Job(
            "r2m.experiments.methods:gather",
            {"parts": [*made, references.paths(seed=seed)["scores"]]},
            {"scores": gathered.paths(seed=seed)["scores"]},
            {
                "labels": {name: plan.label(name) for name in variants},
                "notes": {
                    "experiment": "methods",
                    "reference": reference_of(params, variants),
                    "trained": " ".join(map(",".join, several)),
                },
            },
        )

    images = more_images(plan, options.generators) if options.generators else ()
    own = trained_specialists(seeded, "methods", "generator", several[-1], train)
    lacking = [one for one in own.finetune.instances if not is_made(**one)]
    counts = [{"number": str(len(names)), "seed": seed} for names in several for seed in seeded.seeds]
    joint = Stage(
        "methods_joint",
        trained_outputs(f"{folder}/joint/{{number}}/seed{{seed}}"),
        train_jointly,
        [one for one in counts if not is_made_jointly(**one)],
        memory=MEMORY,
        priority=10,
        place="experiments/methods/joint",
    )
    merges = Stage(
        "methods_merge",
        {"scores": f"{folder}/seed{{seed}}/merges/{{variant}}.parquet"},
        merge,
        seeded.seeded(variant=variants),
        memory=5000,
        place="experiments/methods/merges",
    )
    references = Stage(
        "methods_references",
        {"scores": f"{folder}/seed{{seed}}/references.parquet"},
        refer,
        [{"seed": seed} for seed in seeded.seeds],
        memory=5000,
        place="experiments/methods/references",
    )
    gathered = scores_stage(seeded, "methods", gather, memory=2000)
    trainings = [replace(stage, instances=lacking) for stage in (own.finetune, own.task_vector)]
    return [*images, *trainings, joint, merges, references, gathered]


def run(
    bench: Bench, variants: Sequence[Chosen], *, plan: MethodsPlan, joint: Sequence[Path] = ()
) -> pd.DataFrame:
    """Return the scores of every merge variant for every number of specialists, on all val and test images.

    Columns: variant, method, specialists (how many), tuned (as text), cpu_seconds (of the merge with the
    chosen options), `KEPT` and logit. With `joint`, a trained model for each number, there are that and the
    ensemble of the specialists as well; they have neither a method nor seconds.
    """
    import pandas as pd

    from r2m.models import checkpoint

    parts = []

    def add(scores: pd.DataFrame, *setting: str | float) -> None:
        parts.append(scores[[*KEPT, "logit"]].assign(**dict(zip(SETTING, setting, strict=True))))

    for generators in plan.generators:
        for name, variant in plan.variants.items():
            add(*merged(bench.only(generators), name, variant, generators))
    alone: dict[str, pd.DataFrame] = {}
    for generators, path in zip(plan.generators if joint else (), joint, strict=True):
        add(bench.scores(checkpoint.load(path)[0], {}), JOINT, "", len(generators), "", np.nan)
        for name in generators:
            alone[name] = alone[name] if name in alone else calibrated(bench, name)
        mean = np.mean([alone[name]["logit"] for name in generators], axis=0)
        add(alone[generators[0]].assign(logit=mean), ENSEMBLE, "", len(generators), "", np.nan)
    return pd.concat(parts, ignore_index=True)[[*SETTING, *KEPT, "logit"]]


def merged(
    bench: Bench, name: str, variant: MergeVariant, generators: Sequence[str]
) -> tuple[pd.DataFrame, str, str, int, str, float]:
    """Return the scores of one merge of all specialists on the bench, and its setting (`SETTING`)."""
    from r2m.evaluate.tuned_merge import as_text, tuned_merge

    method = registry.get(variant.method or name)
    merge = tuned_merge(bench, name, variant, generators)
    options = method.options.model_validate(with_dotted(variant.options, merge.chosen))
    # Once more, since tuning cannot be told from merging otherwise, and after it all methods are warm.
    started = time.process_time()
    bench.update(method, options)
    seconds = time.process_time() - started
    scores = bench.scores(bench.updated(merge.update), merge.head)
    return scores, name, method.name, len(generators), as_text(merge.chosen), seconds


def calibrated(bench: Bench, specialist: str) -> pd.DataFrame:
    """Return the scores of one specialist with logits that are calibrated on val of its own generator.

    Source: Platt scaling, as in the specialist's checkpoint (`r2m.train.deciding.platt`).
    """
    from r2m.train.deciding import platt
    from r2m.train.rows import rows_of

    tensors: Tensors = bench.updated(bench.task_vectors[specialist])
    scores = bench.scores(tensors, bench.heads[specialist])
    scores = scores.assign(logit=scores["logit"].astype(float))
    logits = scores.set_index("image_id")["logit"]
    fakes, reals = (
        logits[rows["image_id"]].to_numpy(float) for rows in rows_of(bench.inputs, [specialist], "val")
    )
    slope, offset = platt([(reals, fakes)])
    return scores.assign(logit=slope * scores["logit"] + offset)


def gather(
    *, parts: Sequence[Path], labels: Mapping[str, str], notes: Mapping[str, str], scores: Path
) -> None:
    """Write several files of scores as one, with `notes`, and `merge`: the name of each variant for readers.

    Raises:
        R2MError: a file is missing, or not one of scores.
    """
    import pandas as pd

    from r2m.evaluate.experiment_means import read_columns
    from r2m.evaluate.scores import write

    frames = [read_columns(path, [*SETTING, *KEPT, "logit"]) for path in parts]
    frame = pd.concat(frames, ignore_index=True)
    write(frame.assign(merge=frame["variant"].map({**labels, **REFERENCES})), notes, scores)


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: one row per number of specialists and method.

    `in distribution` means the generators of that number of specialists. Limits of intervals and differences
    from the reference stand in the CSV only.
    """
    import pandas as pd

    from r2m.evaluate.bootstrap import LEVEL
    from r2m.evaluate.delong import ALPHA
    from r2m.evaluate.experiment_means import read_columns, read_notes
    from r2m.report.table import Table

    notes = read_notes(source, "methods", ["reference", "trained"])
    scores = read_columns(source, ["merge", *SETTING, *KEPT, "logit"])
    several = [names.split(",") for names in notes["trained"].split(" ")]
    frame = pd.concat(
        [of_number(scores, names, notes["reference"], context, source) for names in several],
        ignore_index=True,
    )
    titles = protocol_titles(frame)
    label = frame.loc[frame["variant"] == notes["reference"], "merge"].iloc[0]
    numbers = " and ".join(str(len(names)) for names in several)
    return Table(
        frame,
        {
            "merge": "Method",
            **titles,
            "better": "Better",
            "worse": "Worse",
            "cpu_seconds": "CPU seconds",
        },
        caption=(
            f"Merges that need no data, of {numbers} specialists. Each that has options to tune tries the"
            " same number of candidates on val of the generators that are trained on. Mean AUC over those,"
            f" the other generators, and the other domains; their {100 * LEVEL:g} %"
            " intervals over people stand in the CSV. Better, worse: on how many of the"
            f" {frame['test_sets'].iloc[0]} test sets the AUC is above or below that of {label} by DeLong's"
            f" paired test at {ALPHA:g}, with Holm's correction over all tests of a number of specialists."
            " CPU seconds: of one merge with the chosen options, in memory. The ensemble is the mean of the"
            " specialists' calibrated logits. Best of a part bold, second underlined."
        ),
        label="methods",
        best=list(titles),
        section="part",
        sections={part: part for part in frame["part"]},
        digits=dict.fromkeys(("better", "worse", "cpu_seconds"), 1),
    )


def of_number(
    scores: pd.DataFrame, trained: Sequence[str], reference: str, context: EvaluationContext, source: Path
) -> pd.DataFrame:
    """Return the table's rows of one number of specialists, that of the generators `trained`.

    For every protocol there are the mean AUC, its limits `…_low` and `…_high`, and `…_gain` over the
    reference with limits of its own, which are NaN for the reference itself.
    """
    from r2m.evaluate.delong import comparisons
    from r2m.evaluate.evaluation import Scores, evaluate
    from r2m.evaluate.experiment_means import protocol_means
    from r2m.evaluate.means import mean_intervals

    generators = {
        name: generator.model_copy(update={"role": "train" if name in trained else "unseen"})
        for name, generator in context.generators.items()
    }
    known = context.model_copy(update={"generators": generators})
    own = scores[scores["specialists"] == len(trained)]
    models = []
    for name, rows in own.groupby("variant", sort=False):
        kind = "joint" if name in REFERENCES else "merge"
        models.append(Scores(str(name), kind, "", rows["merge"].iloc[0], rows, str(source)))
    evaluation = evaluate(models, known, context.resamples, context.seed)
    setting = ["merge", "variant", "method", "specialists", "cpu_seconds"]
    frame = own[setting].drop_duplicates("variant").reset_index(drop=True)
    part = f"{len(trained)} specialists"
    parts = [f"{part}, for reference" if name in REFERENCES else part for name in frame["variant"]]
    frame.insert(4, "part", parts)
    frame.insert(5, "reference", reference)
    frame.insert(6, "test_sets", len(evaluation.sets))
    frame = frame.merge(protocol_means(own, ["variant"], known), on="variant")
    means = mean_intervals(evaluation, reference, known)
    for protocol in (name for name in PROTOCOLS if name in frame):
        rows = means[(means["protocol"] == protocol) & (means["part"] == "mean")].set_index("model")
        rows = rows.loc[frame["variant"]]
        for name in ("low", "high"):
            frame[f"{protocol}_{name}"] = rows[name].to_numpy(float)
        # The other way round: what a row has more than the reference.
        turned = {"gain": "difference", "gain_low": "difference_high", "gain_high": "difference_low"}
        for name, of_reference in turned.items():
            frame[f"{protocol}_{name}"] = -rows[of_reference].to_numpy(float)
    tests = comparisons(evaluation, reference)
    for name, of_reference in (("better", "worse"), ("worse", "better")):
        counts = (tests["significance"] == of_reference).groupby(tests["model"]).sum()
        frame[name] = frame["variant"].map(counts).astype(float)
    return frame


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw a row per method and a panel per number of specialists, with intervals, in the table's order."""
    import pandas as pd

    from r2m.evaluate.bootstrap import LEVEL
    from r2m.report.figures.style import add_axes, canvas, new_figure, styled, text_width, wrap

    numbers = list(dict.fromkeys(table["specialists"]))
    names = list(dict.fromkeys(table["variant"]))
    shown = [name for name in MARKS if name in table]
    columns = [f"{name}{limit}" for name in shown for limit in ("", "_low", "_high")]
    table = table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in columns})
    limits = _limits(table[columns].to_numpy(float))
    looks = table.drop_duplicates("variant").set_index("variant")
    places = [ROW * (place + 0.5) + HEADING * (name in REFERENCES) for place, name in enumerate(names)]
    left = MARGIN + max(text_width(text, LABEL_SIZE) for text in looks["merge"]) + 0.12
    wide = PANEL + NUMBER * len(shown) + 0.06
    width = left + len(numbers) * (wide + GAP) - GAP + MARGIN
    body = max(places) + ROW * 0.5
    reference = looks["reference"].iloc[0]
    note = wrap(
        f"Mean AUC with its {100 * LEVEL:g} % interval over people, and its value; dashed:"
        f" {looks.loc[reference, 'merge']}, which the others are tested against. Methods stand in one order"
        " in all panels.",
        NUMBER_SIZE,
        width - 2 * MARGIN,
    )
    top = MARGIN + 0.6
    label: dict[str, Any] = {"size": LABEL_SIZE, "ha": "right", "va": "center"}
    small: dict[str, Any] = {"size": NUMBER_SIZE, "va": "bottom"}
    with styled():
        drawn = new_figure(width, top + body + 0.5 + 0.14 * (note.count("\n") + 1))
        page = canvas(drawn)
        for name, y in zip(names, places, strict=True):
            colour = _colour(looks.loc[name, "method"])
            page.text(left - 0.1, top + y, looks.loc[name, "merge"], color=colour, **label)
        heading = top + body - ROW * len(REFERENCES) - 0.4 * HEADING
        page.text(left - 0.1, heading, "For reference", style="italic", **label)
        for place, number in enumerate(numbers):
            x = left + place * (wide + GAP)
            page.text(x, top - 0.22, f"{number} specialists", size=8.5, va="bottom")
            for column, protocol in enumerate(shown):
                right = x + PANEL + NUMBER * (column + 1)
                page.text(right, top - 0.03, SHORT[protocol], ha="right", **small)
            axes = add_axes(drawn, x, top, PANEL, body)
            rows = table[table["specialists"] == number].set_index("variant").loc[names]
            _panel(axes, rows, places, shown, reference)
            axes.set(ylim=(body, 0), yticks=[], xlabel="mean AUC", xlim=limits)
        drawn.legend(
            handles=[_mark(protocol) for protocol in shown],
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, 1 - 0.04 / drawn.get_figheight()),
            ncols=2,
            handletextpad=0.3,
            borderaxespad=0,
        )
        page.text(MARGIN, drawn.get_figheight() - 0.08, note, linespacing=1.3, **small)
    return drawn


def _panel(
    axes: Axes, rows: pd.DataFrame, places: Sequence[float], shown: Sequence[str], reference: str
) -> None:
    """Draw one number of specialists: `rows` are indexed by variant and stand at `places` (inches)."""
    from r2m.report.numbers import number

    for y in places:
        axes.axhline(y, color="#eeeeee", lw=0.6, zorder=0)
    for column, protocol in enumerate(shown):
        marker, filled = MARKS[protocol]
        axes.axvline(
            float(rows[protocol][reference]),
            color=_colour(rows["method"][reference]),
            lw=0.7,
            ls=(0, (4, 2)),
            zorder=1,
        )
        values = zip(*(rows[f"{protocol}{limit}"] for limit in ("", "_low", "_high")), strict=True)
        for y, (value, low, high), method in zip(places, values, rows["method"], strict=True):
            if not np.isfinite(value):
                continue
            colour = _colour(method)
            # Two intervals that overlap are told apart by their heights.
            at = y + ROW * (column - (len(shown) - 1) / 2) / 4
            axes.plot([low, high], [at, at], color=colour, lw=0.9, zorder=2)
            face = colour if filled else "white"
            axes.plot(value, at, marker, color=colour, markerfacecolor=face, markersize=3.8, zorder=3)
            x = 1 + NUMBER * (column + 1) / PANEL
            axes.text(
                x,
                y,
                number(value),
                size=NUMBER_SIZE,
                ha="right",
                va="center",
                transform=axes.get_yaxis_transform(),
            )
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the common limits of the x axes: the range of the intervals and some room."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.05 * max(high - low, 0.02)
    return low - room, high + room


def _colour(method: str) -> str:
    from r2m.report.figures.style import INK, method_colour

    return method_colour(method) if method == "r2m" else INK


def _mark(protocol: str) -> Line2D:
    from matplotlib.lines import Line2D

    from r2m.report.figures.style import INK

    marker, filled = MARKS[protocol]
    face = INK if filled else "white"
    return Line2D([], [], ls="", marker=marker, color=INK, markerfacecolor=face, label=PROTOCOLS[protocol])


EXPERIMENT = Experiment(
    title="Methods",
    caption=(
        "All merges that need no data, enabled in the main results or not, of the run's specialists and of"
        " more: generators that are unseen elsewhere (`experiments.methods.generators`) are trained on here"
        " for the larger number, so *in distribution* covers more there and *unseen* fewer. Options are"
        " chosen on val for each merge, number of specialists and training anew, from the same number of"
        " candidates; merges without options that are tuned have nothing to choose. For reference there are"
        " joint training on the same generators, and the mean of the specialists' calibrated logits, which"
        " needs all models at test time. Look at whether the order of methods is the same for both numbers,"
        " and at the intervals before calling one best: with several trainings all numbers are means over"
        " them, limits included."
    ),
    options=MethodsOptions,
    check=check,
    takes={"with_statistics": False, "of_all_specialists": False, "enabled": False},
    stages=stages,
    table=table,
    figure=figure,
    seeds=seeds,
    order=9,
)
