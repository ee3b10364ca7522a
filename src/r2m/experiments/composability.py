"""Composability: generators arrive one by one, and the detector is merged again or trained again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import Field, PositiveInt

from r2m.errors import R2MError
from r2m.evaluate.orders import COSTS, SETTING, random_orders, subset_name, subsets
from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments.experiment import Experiment, ExperimentOptions, Variants, merge_stage
from r2m.merge.variants import MergeVariant
from r2m.options import combinations
from r2m.plan.stage import Job, Stage
from r2m.train.options import FinetuneOptions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from r2m.core_params import CoreParams
    from r2m.evaluate.bench import Bench
    from r2m.merge.stages import Chosen
    from r2m.plan.plan import Plan
    from r2m.report.table import Table

PARTS = {"seen": "Seen", "to_come": "To come", "unseen": "Unseen"}
PANELS = {"seen": "Seen so far", "to_come": "Still to come", "unseen": "Unseen generators"}
PANEL, HEIGHT, GAP, LEFT, RIGHT, TOP = 1.32, 1.75, 0.14, 0.5, 0.12, 0.3
COST_GAP = 0.55
DODGE = 0.06
COLUMNS = 5
KEYS = ["kind", "model"]
NOTE_SIZE = 6.5
NOTE = (
    "Means over random orders of arrival, with the range from the worst order to the best. K = 1 is the one"
    " specialist. Cost: images read by training, validation and tuning in all steps so far; where lines"
    " coincide, the thinner lies upon the wider."
)


# Variants of one method share its colour, not its mark; squares are joint training's.
MARKS = "oD^vP"


class ComposabilityOptions(ExperimentOptions):
    """Generators that arrive one by one: merged again, or trained jointly again."""

    orders: PositiveInt = Field(default=3, description="random orders of arrival, drawn by `seed`")
    variants: Variants = Field(
        default=["weight_averaging", "task_arithmetic", "ties", "r2m"],
        description="enabled merge variants whose methods need no statistics",
    )


def check(params: CoreParams, options: ComposabilityOptions) -> Iterator[str]:
    """Yield that there is nothing to merge."""
    if options.enabled and len(params.specialist_members) < 2:
        yield (
            "experiments.composability: expected two specialists or more, here is one;"
            " expected `enabled: false`"
        )


def stages(plan: Plan, options: ComposabilityOptions) -> Sequence[Stage]:
    """Return the joint trainings on subsets of the generators, and the scores.

    The models of single specialists, and that of all of them, are the main run's.
    """
    from r2m.plan.plan import BENCHMARKS
    from r2m.plan.training import MEMORY, trained_outputs

    orders = random_orders(plan.members, options.orders, plan.params.seed)
    members = {**{name: [name] for name in plan.members}, **subsets(orders)}
    several = [name for name, names in members.items() if 1 < len(names) < len(plan.members)]

    def generators(subset: str) -> list[str]:
        own = {generator for name in members[subset] for generator in plan.members[name]}
        return [name for name in plan.trained if name in own]

    def train(subset: str, seed: str) -> Job:
        return plan.finetune_job(
            f"joint-{subset}",
            generators(subset),
            plan.params.joint_options(len(members[subset])),
            seed,
            joint.paths(subset=subset, seed=seed),
        )

    def model(subset: str, seed: str) -> Path:
        if subset in plan.members:
            return plan.model("specialist", subset, seed)
        if subset in several:
            return joint.paths(subset=subset, seed=seed)["model"]
        return plan.model("joint", "joint", seed)

    def benchmark(subset: str, seed: str) -> Path:
        """Return the benchmark file of a training; there is none where the model came from DVC."""
        if subset in plan.members:
            return BENCHMARKS / f"finetune/{subset}/seed{seed}.tsv"
        if subset in several:
            return Path(joint.benchmark.format(subset=subset, seed=seed))
        return BENCHMARKS / f"joint/seed{seed}.tsv"

    joint = Stage(
        "joint_subset",
        trained_outputs("results/experiments/composability/seed{seed}/joint/{subset}"),
        train,
        plan.seeded(subset=several),
        memory=MEMORY,
        place="experiments/composability/joint",
    )
    variants = {name: plan.tuned(name) for name in sorted(options.variants)}
    scored = merge_stage(
        plan,
        "composability",
        variants,
        lambda seed: {
            "benchmarks": {subset: benchmark(subset, seed) for subset in members},
            "orders": orders,
            "tuned": variants,
        },
        memory=4000,
        tuned_here=True,
        inputs=lambda seed: {"models": {subset: model(subset, seed) for subset in members}},
        steps="steps.csv",
    )
    return [joint, scored]


def run(
    bench: Bench,
    variants: Sequence[Chosen],
    *,
    models: Mapping[str, Path],
    benchmarks: Mapping[str, Path],
    orders: Sequence[Sequence[str]],
    tuned: Mapping[str, MergeVariant],
    steps: Path,
) -> pd.DataFrame:
    """Merge and score the specialists that have arrived at each step, beside joint training on the same.

    `models` holds subset → the model trained on it; `benchmarks` Snakemake's file of that training, which may
    be missing.

    Raises:
        R2MError: an order that is not one of all specialists, or a subset without a model.
    """
    from r2m.files import atomic_path
    from r2m.report.runtimes import cpu_seconds

    known = bench.task_vectors.keys()
    for order in orders:
        if sorted(order) != sorted(known):
            raise R2MError(f"order {','.join(order)}: expected each of {', '.join(sorted(known))} once")
    if lacking := {*subsets(orders), *known} - models.keys():
        raise R2MError(f"models: expected one of {min(lacking)} as well")
    trained = {
        name: read_trained(path, cpu_seconds(benchmarks[name]) if name in benchmarks else math.nan)
        for name, path in models.items()
    }
    scores, taken = composed(bench, trained, tuned, orders)
    scores.attrs["orders"] = " ".join(map(",".join, orders))
    with atomic_path(steps) as temporary:
        taken.to_csv(temporary, index=False, float_format="%.2f", lineterminator="\n")
    return scores


@dataclass(frozen=True)
class Trained:
    """A model that was trained on some generators: a specialist, or a joint one on those of several.

    `seconds` are of CPU time, NaN where nothing was measured.
    """

    path: Path
    generators: list[str]
    options: FinetuneOptions
    steps: int
    seconds: float = math.nan

    def images(self, bench: Bench) -> int:
        """Return how many images its training has read: those of all batches and of all validations."""
        validations = math.ceil(self.steps / self.options.validate_every)
        return 2 * self.options.pairs * self.steps + validations * val_images(bench, self.generators)


def read_trained(path: Path, seconds: float = math.nan) -> Trained:
    """Read what a model of `r2m finetune` says of its training.

    Raises:
        R2MError: not such a model.
    """
    from r2m.models import checkpoint

    metadata = checkpoint.read_metadata(path)
    try:
        options = FinetuneOptions.model_validate_json(metadata["options"])
        steps = json.loads(metadata["selected"])["steps"]
        return Trained(path, json.loads(metadata["generators"]), options, steps, seconds)
    except (KeyError, ValueError) as error:
        raise R2MError(f"{path}: expected a model of `r2m finetune` ({error})") from error


def val_images(bench: Bench, generators: Sequence[str]) -> int:
    """Return how many images the val split of `generators` has, their reals included."""
    from r2m.train.rows import rows_of

    return sum(len(rows) for rows in rows_of(bench.inputs, list(generators), "val"))


def composed(
    bench: Bench,
    trained: Mapping[str, Trained],
    variants: Mapping[str, MergeVariant],
    orders: Sequence[Sequence[str]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Merge, tune and score every subset that the orders pass through.

    `trained` holds the model of every specialist by its name, and that of joint training on every larger
    subset by the subset's. A subset of several is merged by each of `variants`, whose grid is tried on the
    val split of the generators seen so far; a single specialist is what it is, by whatever method.

    Returns:
        The scores, columns subset, kind, model, `KEPT` and logit; each subset once. And one row for each
        order, step and method, with the cost of that step alone (`COSTS`): it trains the specialist that
        arrives and merges, or trains jointly on all that have arrived. Seconds differ from run to run.
    """
    import pandas as pd

    from r2m.evaluate.tuned_merge import tuned_merge
    from r2m.models import checkpoint

    parts = []
    merging: dict[tuple[str, str], tuple[int, float]] = {}
    for subset, names in subsets(orders).items():
        kind = "specialist" if len(names) == 1 else "joint"
        tensors, _ = checkpoint.load(trained[subset].path)
        scores = bench.scores(tensors, {})
        model = subset if kind == "specialist" else "joint"
        parts.append(scores.assign(subset=subset, kind=kind, model=model))
        for variant, options in variants.items() if len(names) > 1 else ():
            started = time.process_time()
            generators = trained[subset].generators
            merge = tuned_merge(bench.only(names), variant, options, generators)
            candidates = len(combinations(options.tune))
            images = candidates * val_images(bench, generators) if candidates > 1 else 0
            merging[subset, variant] = images, time.process_time() - started
            scores = bench.scores(bench.updated(merge.update), merge.head)
            parts.append(scores.assign(subset=subset, kind="merge", model=variant))
    scores = pd.concat(parts, ignore_index=True)[[*SETTING, *KEPT, "logit"]]
    return scores, steps_of(bench, trained, list(variants), merging, orders)


def steps_of(
    bench: Bench,
    trained: Mapping[str, Trained],
    variants: Sequence[str],
    merging: Mapping[tuple[str, str], tuple[int, float]],
    orders: Sequence[Sequence[str]],
) -> pd.DataFrame:
    """Return one row for each order, step and method: what arrives, what has arrived, and `COSTS`.

    `merging` holds the images and seconds of each subset's and variant's tuning and merge.
    """
    import pandas as pd

    images = {subset: model.images(bench) for subset, model in trained.items()}
    rows = []
    for number, order in enumerate(orders):
        for k, arrived in enumerate(order, start=1):
            subset = subset_name(order[:k])
            there = {"order": number, "k": k, "arrived": arrived, "subset": subset}
            there["generators"] = " ".join(trained[subset].generators)
            for variant in variants:
                tuning, seconds = merging[subset, variant] if k > 1 else (0, 0.0)
                costs = images[arrived], tuning, trained[arrived].seconds, seconds
                rows.append(
                    {**there, "kind": "merge", "model": variant, **dict(zip(COSTS, costs, strict=True))}
                )
            costs = images[subset], 0, trained[subset].seconds, 0.0
            rows.append({**there, "kind": "joint", "model": "joint", **dict(zip(COSTS, costs, strict=True))})
    return pd.DataFrame(rows)


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source` and of the steps in steps.csv beside it.

    It has one row per number of generators and method: means over the orders, and the extremes.

    Raises:
        R2MError: a file is missing or has other columns.
    """
    from r2m.evaluate.arrivals import cumulated, means, part_means, read_steps
    from r2m.evaluate.experiment_means import read_settings
    from r2m.report.table import Table

    scores, taken = read_settings(source, SETTING), read_steps(source.with_name("steps.csv"))
    frame = means(part_means(scores, taken, context), cumulated(taken))
    methods = [
        context.variant_label(model) if kind == "merge" else "Joint retraining"
        for kind, model in zip(frame["kind"], frame["model"], strict=True)
    ]
    frame.insert(3, "method", methods)
    aucs = {
        key: heading
        for part, title in PARTS.items()
        for key, heading in ((part, title), (f"{part}_low", "min"), (f"{part}_high", "max"))
    }
    count = taken["order"].nunique()
    orders = f"{count} random orders" if count > 1 else "one random order"
    return Table(
        frame,
        {"k": "K", "method": "Method", **aucs, "images": "Images read", "seconds": "CPU seconds"},
        caption=(
            "K generators have arrived, one after the other. Mean AUC in the training domain on those seen so"
            f" far, on those still to come and on the unseen ones: mean, min and max over {orders}."
            " K = 1 is the specialist itself. Every merge is tuned again on the val split of the"
            " generators seen. Images read (by training, validation and tuning) and CPU seconds are"
            " cumulated over the steps, each of which trains one specialist and merges, or trains jointly on"
            " all that have arrived; the frozen lower blocks run once per image for both. Best of a K bold,"
            " second underlined."
        ),
        label="composability",
        best=list(PARTS),
        section="k",
        digits={"images": 0, "seconds": 0},
    )


class Method(NamedTuple):
    """One line: its rows of the table, and its looks."""

    rows: pd.DataFrame
    colour: str
    marker: str


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw the table of composability: three panels of AUC over K, and one of the cumulated cost."""
    import pandas as pd

    from r2m.report.figures.framing import legend_above, text_below
    from r2m.report.figures.style import add_axes, new_figure, styled, wrap

    columns = [f"{part}{suffix}" for part in PANELS for suffix in ("", "_low", "_high")]
    # What is missing, as after the last step nothing is to come, was read as empty text.
    table = table.assign(**table[columns].apply(pd.to_numeric))
    methods = _methods(table)
    width = LEFT + 4 * PANEL + 2 * GAP + COST_GAP + RIGHT
    note = wrap(NOTE, NOTE_SIZE, width - 2 * RIGHT)
    below = 0.42 + 0.17 * -(-len(methods) // COLUMNS) + 0.15 * (note.count("\n") + 1)
    with styled():
        drawn = new_figure(width, TOP + HEIGHT + below)
        aucs = table[columns].to_numpy(dtype=float)
        limits = float(np.nanmin(aucs)) - 0.02, float(np.nanmax(aucs)) + 0.02
        for index, (part, title) in enumerate(PANELS.items()):
            axes = add_axes(drawn, LEFT + index * (PANEL + GAP), TOP, PANEL, HEIGHT)
            _aucs(axes, methods, part)
            _dress(axes, title, table["k"])
            axes.set(ylim=limits, ylabel="" if index else "mean AUC")
            axes.tick_params(labelleft=index == 0)
        axes = add_axes(drawn, LEFT + 3 * PANEL + 2 * GAP + COST_GAP, TOP, PANEL, HEIGHT)
        for place, method in enumerate(reversed(methods)):
            axes.plot(method.rows["k"], method.rows["images"] / 1000, color=method.colour, lw=1 + 0.9 * place)
            axes.lines[-1].set_zorder(2 - 0.01 * place)
        _dress(axes, "Images read", table["k"])
        axes.set(ylim=(0, None), ylabel="thousands, cumulated")
        handles = [_handle(method) for method in methods]
        legend_above(drawn, handles, RIGHT, COLUMNS, TOP + HEIGHT + 0.38, handlelength=1.6, columnspacing=1.2)
        text_below(drawn, note, RIGHT)
    return drawn


def _methods(table: pd.DataFrame) -> list[Method]:
    """Return the lines of the figure, in the order of the table."""
    from r2m.report.figures.style import KIND_COLOURS, KIND_MARKERS, method_colour

    methods: list[Method] = []
    for (kind, model), rows in table.groupby(KEYS, sort=False):
        colour = method_colour(str(model)) if kind == "merge" else KIND_COLOURS[str(kind)]
        same = sum(method.colour == colour for method in methods)
        marker = MARKS[same % len(MARKS)] if kind == "merge" else KIND_MARKERS[str(kind)]
        methods.append(Method(rows, colour, marker))
    return methods


def _aucs(axes: Axes, methods: list[Method], part: str) -> None:
    """Draw one part: means as lines, ranges over the orders as bars that stand beside each other."""
    for place, (rows, colour, marker) in enumerate(methods):
        x = rows["k"] + (rows["k"] > 1) * DODGE * (place - (len(methods) - 1) / 2)
        axes.vlines(x, rows[f"{part}_low"], rows[f"{part}_high"], color=colour, lw=0.8)
        axes.plot(x, rows[part], marker, ls="-", color=colour, ms=3.2, lw=1)


def _handle(method: Method) -> Line2D:
    from matplotlib.lines import Line2D

    label = method.rows["method"].iloc[0]
    return Line2D([], [], marker=method.marker, ms=3.2, lw=1, color=method.colour, label=label)


def _dress(axes: Axes, title: str, k: pd.Series) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left")
    axes.set(xlabel="generators K", xlim=(k.min() - 0.3, k.max() + 0.3))
    axes.xaxis.set_major_locator(MaxNLocator(min(8, k.nunique()), integer=True))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


EXPERIMENT = Experiment(
    title="Composability",
    caption=(
        "Generators arrive one after the other, in several random orders, and after each arrival there is"
        " a detector: the specialists so far merged by each method, or joint training once more on all"
        " images so far (its steps grow evenly from a specialist's to those of the joint model of the main"
        " results). At K = 1 there is nothing to merge: all begin with the one specialist. Options of"
        " merges are chosen anew at every step, on the val split of the generators seen so far; the test"
        " AUCs are those of the training domain. Look at how far the merges stay behind joint training on"
        " the generators seen, whether any method gains on those still to come or unseen, and at what"
        " joint training reads for that: images and CPU seconds are summed over all steps so far,"
        " validation and tuning included. Ranges are from the worst order to the best."
    ),
    options=ComposabilityOptions,
    check=check,
    takes={"with_statistics": False, "of_all_specialists": False},
    stages=stages,
    table=table,
    figure=figure,
    order=6,
)
