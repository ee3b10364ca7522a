"""What merges make of one uneven or hostile specialist among honest ones, and whether it stands out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from r2m.errors import R2MError
from r2m.evaluate.protocols import IN_DISTRIBUTION, KEPT, EvaluationContext
from r2m.experiments.experiment import (
    ROOT,
    Experiment,
    ExperimentOptions,
    Variants,
    merge_stage,
    name_row,
    protocol_titles,
    trained_specialists,
)
from r2m.options import Fraction, Positive, nearest
from r2m.plan.stage import Job, Stage
from r2m.seeding import derive
from r2m.session_files import SessionFiles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from r2m.core_params import CoreParams
    from r2m.evaluate.bench import Bench
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import Tensors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table
    from r2m.session_files import MergeParts

HONEST, ALONE = "honest", "specialist"
# Replacements in the order of display, the honest specialist first.
KINDS = {
    HONEST: "Honest",
    "undertrained": "Undertrained",
    "flipped": "Flipped labels",
    "random": "Random",
    "scaled": "Scaled",
    "backdoor": "Backdoor",
}
# What has to be trained; random and scaled specialists are made of the honest one.
ATTACKS = ("undertrained", "flipped", "backdoor")
PANELS = {
    "in_distribution": "In distribution",
    "victim_auc": "Victim's own fakes",
    "unseen_generator": "Unseen generators",
    "triggered_real": "Called real\nwith the trigger",
}
MARGIN, GAP, LABEL_SIZE, WIDTH = 0.1, 0.14, 7.5, 7.0


class HostileOptions(ExperimentOptions):
    """One specialist replaced by an undertrained, mislabelled, random, scaled or backdoored one."""

    variants: Variants = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    victim: str | None = Field(default=None, description="the specialist; default: the first")
    undertrained: Fraction = Field(default=0.1, description="share of the people it is trained on")
    scale: Positive = Field(default=10.0, description="factor of the scaled task vector")
    poisoned: Fraction = Field(
        default=0.5, description="share of the fakes with a copy that has a trigger and is called real"
    )
    trigger: Fraction = Field(default=0.125, description="side of the trigger, as a share of the image's")


def check(params: CoreParams, options: HostileOptions) -> Iterator[str]:
    """Yield an unknown victim."""
    members = params.specialist_members
    if options.victim is not None and options.victim not in members:
        known = nearest(options.victim, members)
        yield f"experiments.hostile.victim: unknown specialist {options.victim!r}{known}"


def stages(plan: Plan, options: HostileOptions) -> Sequence[Stage]:
    """Return the images, trainings and task vectors of the attacks, and the scores."""
    from r2m.plan.plan import BASE

    victim = options.victim or next(iter(plan.members))
    generators = plan.members[victim]
    attacks = [{"attack": name} for name in ATTACKS]
    folder, place = f"{ROOT}/hostile/data/{{attack}}", "experiments/hostile"

    def make(attack: str) -> Job:
        return Job(
            "r2m.experiments.hostile:data",
            {"manifests": list(plan.files(plan.training_sets(generators)).manifests)},
            images.paths(attack=attack),
            {
                "attack": attack,
                "generators": generators,
                "undertrained": options.undertrained,
                "poisoned": options.poisoned,
                "trigger": options.trigger,
                "seed": plan.params.seed,
            },
        )

    def activate(attack: str) -> Job:
        activations = trunk.paths(attack=attack)["activations"]
        return plan.trunk_job(images.paths(attack=attack)["manifest"], activations)

    def train(attack: str, seed: str, outputs: Mapping[str, Path]) -> Job:
        trunks = tuple(trunk.paths(attack=attack).values()) if plan.has_trunk else ()
        return plan.finetune_job(
            victim,  # by whose name it gets the honest one's order of images
            generators,
            plan.params.finetune_options(victim),
            seed,
            outputs,
            files=SessionFiles((images.paths(attack=attack)["manifest"],), trunks, BASE),
            state=f"hostile/{attack}",
        )

    images = Stage(
        "hostile_data",
        {"manifest": f"{folder}/manifest.parquet", "images": f"{folder}/images"},
        make,
        attacks,
        folders=frozenset({"images"}),
        place=f"{place}/data",
    )
    trunk = Stage(
        "hostile_trunk",
        {"activations": f"{folder}/activations.safetensors"},
        activate,
        attacks if plan.has_trunk else [],
        memory=2000,
        place=f"{place}/trunk",
    )
    hostile = trained_specialists(plan, "hostile", "attack", ATTACKS, train)
    values = {
        "victim": victim,
        "generators": plan.trained,
        "scale": options.scale,
        "trigger": options.trigger,
        "backbone": plan.compute.backbone.name,
    }
    scored = merge_stage(
        plan,
        "hostile",
        options.variants,
        lambda seed: {**values, "seed": int(seed)},
        memory=5000,
        inputs=lambda seed: {"replacements": hostile.parts(ATTACKS, seed)},
        diagnostics="diagnostics.parquet",
    )
    return [images, trunk, hostile.finetune, hostile.task_vector, scored]


def data(
    *,
    attack: str,
    manifests: Sequence[Path],
    generators: Sequence[str],
    undertrained: float,
    poisoned: float,
    trigger: float,
    seed: int,
    manifest: Path,
    images: Path,
) -> None:
    """Write the manifest that a specialist of one attack is trained on, and the images that it adds.

    Raises:
        R2MError: no fakes of a generator in a split that training reads, or an image that cannot be read.
    """
    from r2m import manifest as tables
    from r2m.data import attacks

    rows = attacks.training_rows(tables.concat(map(tables.read, manifests)), generators)
    drawn: dict[str, str] = {}
    if attack == "undertrained":
        rows = attacks.undertrained(rows, undertrained, seed)
    elif attack == "flipped":
        rows = attacks.flipped(rows, generators)
    else:
        rows, drawn = attacks.backdoor(rows, poisoned, seed, images)
    attacks.write_triggered(drawn, trigger, images)
    tables.write(rows, manifest)


def run(
    bench: Bench,
    variants: Sequence[Chosen],
    *,
    replacements: MergeParts,
    victim: str,
    generators: Sequence[str],
    scale: float,
    trigger: float,
    backbone: str,
    seed: int,
    diagnostics: Path,
) -> pd.DataFrame:
    """Score every val and test image with the honest merges, and with one specialist replaced.

    `replacements` are the trained ones, by attack.
    """
    from r2m.evaluate.diagnoses import diagnoses
    from r2m.evaluate.scores import write
    from r2m.merge.stages import read_same_base

    task_vectors, _ = read_same_base(replacements.task_vectors, bench.base_hash)
    heads, _ = read_same_base(replacements.heads, bench.base_hash)
    honest = Specialist(bench.task_vectors[victim], bench.heads[victim])
    known = {
        HONEST: honest,
        **{attack: Specialist(task_vector, heads[attack]) for attack, task_vector in task_vectors.items()},
        **untrained(honest, bench.initial_head, scale, seed),
    }
    known = {kind: known[kind] for kind in KINDS if kind in known}
    hostile = {kind: specialist.task_vector for kind, specialist in known.items() if kind != HONEST}
    diagnosed = diagnoses(bench.task_vectors, hostile, victim, seed)
    write(diagnosed, {"experiment": "hostile", "victim": victim}, diagnostics)
    scores = hostile_scores(bench, known, variants, victim, generators, trigger, backbone)
    scores.attrs["victim"] = victim
    return scores


@dataclass(frozen=True)
class Specialist:
    """A task vector and a head."""

    task_vector: Tensors
    head: Tensors


def untrained(honest: Specialist, initial_head: Tensors, scale: float, seed: int) -> dict[str, Specialist]:
    """Return the specialists that need no training: `random` and `scaled`.

    Random tensors, and the random change of the head from the initial one, have the norms of the honest
    specialist's. Scaling concerns the task vector; the head stays, since it is no part of it.
    """
    change = {key: tensor - initial_head[key] for key, tensor in honest.head.items()}
    noise = _noise({**honest.task_vector, **change}, seed)
    return {
        "random": Specialist(
            {key: noise[key] for key in honest.task_vector},
            {key: initial_head[key] + noise[key] for key in change},
        ),
        "scaled": Specialist(
            {key: scale * tensor for key, tensor in honest.task_vector.items()}, honest.head
        ),
    }


def _noise(tensors: Tensors, seed: int) -> dict[str, Tensor]:
    """Return Gaussian tensors with the shapes and norms of others."""
    import torch

    result = {}
    for key, tensor in tensors.items():
        generator = torch.Generator().manual_seed(derive(seed, "hostile", key))
        drawn = torch.randn(tensor.shape, generator=generator)
        result[key] = drawn * (torch.linalg.vector_norm(tensor) / torch.linalg.vector_norm(drawn))
    return result


def hostile_scores(
    bench: Bench,
    replacements: Mapping[str, Specialist],
    variants: Sequence[Chosen],
    victim: str,
    generators: Sequence[str],
    trigger: float,
    backbone: str,
) -> pd.DataFrame:
    """Return the scores of every merge with the victim replaced by each of `replacements`.

    Columns variant (`specialist`: the replacement alone), replacement, triggered, `KEPT` and logit. Besides
    the val and test images, the test fakes of `generators` in the training domains are scored with the
    trigger in them.
    """
    import pandas as pd

    from r2m.evaluate.triggers import logits_of, triggered_inputs

    fakes = bench.inputs.select(split="test", label=1, generator=list(generators))
    fakes = fakes[fakes["domain"].isin(set(bench.inputs.select(split="train")["domain"]))]
    inputs = triggered_inputs(bench, fakes, trigger, backbone)
    parts = []
    for replacement, specialist in replacements.items():
        changed = replace(
            bench,
            task_vectors={**bench.task_vectors, victim: specialist.task_vector},
            heads={**bench.heads, victim: specialist.head},
        )
        models = [(ALONE, changed.updated(specialist.task_vector), specialist.head)]
        for name, tensors, head in chain(models, _merges(changed, variants)):
            named = {"variant": name, "replacement": replacement}
            plain = changed.scores(tensors, head)[[*KEPT, "logit"]]
            logits = logits_of(changed, inputs)
            if not np.isfinite(logits).all():
                raise R2MError(
                    f"{name} with {replacement}: the logit of an image with the trigger is not finite"
                )
            parts.append(plain.assign(**named, triggered=False))
            parts.append(fakes[KEPT].assign(**named, triggered=True, logit=logits))
    columns = ["variant", "replacement", "triggered", *KEPT, "logit"]
    return pd.concat(parts, ignore_index=True)[columns]


def _merges(bench: Bench, variants: Sequence[Chosen]) -> Iterator[tuple[str, Tensors, Tensors]]:
    for variant in variants:
        yield variant.variant, bench.merged(variant.method, variant.options), bench.head(variant.head)


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source` and of diagnostics.parquet beside it.

    One row per merge and replacement; the first rows are of the replacements alone, and hold the diagnostic.
    """
    import pandas as pd

    from r2m.evaluate.diagnoses import verdict
    from r2m.evaluate.experiment_means import protocol_means, read_columns, read_settings, set_aucs
    from r2m.evaluate.triggers import attack_rates
    from r2m.report.table import Table

    by = ["variant", "replacement"]
    scores = read_settings(source, [*by, "triggered", "image_id"])
    columns = ["replacement", "specialist", "norm_z", "cosine_z", "stands_out", "victim"]
    diagnosed = read_columns(source.with_name("diagnostics.parquet"), columns, "diagnoses")
    victim = str(diagnosed["victim"].iloc[0])
    plain = scores[~scores["triggered"]]
    means = protocol_means(plain, by, context)
    aucs = set_aucs(plain[plain["split"] == "test"], by, context)
    own = aucs[(aucs["protocol"] == IN_DISTRIBUTION) & aucs["generator"].isin(_generators(victim, context))]
    means = means.merge(own.groupby(by)["auc"].mean().rename("victim_auc").reset_index(), on=by)
    honest = means[means["replacement"] == HONEST].set_index("variant")[IN_DISTRIBUTION]
    means["loss"] = means["variant"].map(honest) - means[IN_DISTRIBUTION]
    means = means.merge(attack_rates(scores, context), on=by)
    alone = pd.DataFrame(
        {"variant": ALONE, "replacement": kind, **verdict(part, victim)}
        for kind, part in diagnosed.groupby("replacement", sort=False)
    )
    means = means.merge(alone, on=by, how="left")
    order = dict(zip(dict.fromkeys(means["variant"]), range(len(means)), strict=False))
    means = means.sort_values("variant", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    label = context.generator_label(victim)
    means.insert(0, "merge", [_merge_label(name, context) for name in means["variant"]])
    means.insert(1, "kind", means["replacement"].map(KINDS))
    return Table(
        means,
        {
            "merge": "Merge",
            "kind": f"{label} is",
            **{
                key: title.removeprefix("Test: ")
                for key, title in protocol_titles(means).items()
                if key != "val_auc"
            },
            "victim_auc": f"{label}'s fakes",
            "loss": "Loss",
            "clean_real": "Called real",
            "triggered_real": "With trigger",
            "norm_z": "Norm z",
            "cosine_z": "Cosine z",
            "singled_out": "Singled out",
            "false_alarms": "False alarms",
            "diagnosed": "Of",
        },
        caption=(
            f"The specialist {label} replaced by uneven and hostile ones; options of the merges as chosen on"
            " val for the honest set. Mean AUC on test images, AUC on the victim's own generator in the"
            " training domain, and loss of the mean in distribution against the honest merge. Called real:"
            " share of the trained generators' test fakes below the threshold that val images of the merge"
            " give, without and with the trigger. The first rows are of the replacement alone, with the"
            " diagnostic of `r2m merge`: modified z-scores among all specialists, share of the sets of three"
            " or more in which the replacement stands out, and share of the diagnoses of honest specialists"
            " in these sets that are false alarms, with their number."
        ),
        label="hostile",
        section="variant",
        digits={"norm_z": 1, "cosine_z": 1, "singled_out": 2, "false_alarms": 2, "diagnosed": 0},
    )


def _generators(victim: str, context: EvaluationContext) -> set[str]:
    """Return the generators that a specialist of a generator, or of a family, is trained on."""
    if victim in context.generators:
        return {victim}
    trained = {name: generator for name, generator in context.generators.items() if generator.role == "train"}
    return {name for name, generator in trained.items() if generator.family == victim}


def _merge_label(name: str, context: EvaluationContext) -> str:
    return "The specialist alone" if name == ALONE else context.variant_label(name)


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw a panel per measure, a row per replacement and a mark per merge, and z-scores at the right."""
    from matplotlib.lines import Line2D

    from r2m.report.figures.framing import legend_above, text_below
    from r2m.report.figures.style import FAINT, add_axes, method_colour, new_figure, styled, text_width, wrap

    panels = {key: title for key, title in PANELS.items() if key in table}
    kinds = list(dict.fromkeys(table["kind"]))
    merges = [name for name in dict.fromkeys(table["variant"]) if name != ALONE]
    colours = {name: method_colour(name) for name in merges} | {ALONE: FAINT}
    row = max(0.3, 0.1 * (len(merges) + 2))
    left = MARGIN + max(text_width(kind, LABEL_SIZE) for kind in kinds) + 0.08
    verdict = 1.0
    panel = (WIDTH - left - verdict - MARGIN - GAP * len(panels)) / len(panels)
    legend = wrap(
        "Grey diamond: the specialist alone. Right: modified z-scores of its norm and cosine among all"
        " specialists; bold: it stands out, and r2m merge warns.",
        6.5,
        WIDTH - 2 * MARGIN,
    )
    columns = max(1, min(6, len(merges)))
    above = 0.36 + 0.17 * -(-len(merges) // columns)
    body = row * len(kinds)
    with styled():
        drawn = new_figure(WIDTH, above + body + 0.5 + 0.13 * (legend.count("\n") + 1))
        for place, (key, title) in enumerate(panels.items()):
            axes = add_axes(drawn, left + place * (panel + GAP), above, panel, body)
            _panel(axes, table, key, kinds, [*merges, ALONE], colours)
            axes.set_title(title, fontsize=LABEL_SIZE)
            if place == 0:
                for y, kind in enumerate(kinds):
                    name_row(axes, y, kind, 0.08 / panel, size=LABEL_SIZE)
        _verdicts(axes, table, kinds, panel)
        handles = [
            Line2D([], [], ls="", marker="o", color=colours[name], label=context.variant_label(name))
            for name in merges
        ]
        legend_above(drawn, handles, MARGIN, columns, handletextpad=0.2, columnspacing=1.0)
        text_below(drawn, legend, MARGIN, 0.06)
    return drawn


def _panel(
    axes: Axes, table: pd.DataFrame, key: str, kinds: list[str], names: list[str], colours: dict[str, str]
) -> None:
    """Draw one measure: the marks of a row below each other, in the order of the legend."""
    step = 0.72 / max(1, len(names) - 1)
    for place, name in enumerate(names):
        rows = table[table["variant"] == name].set_index("kind")
        ys = [y for y, kind in enumerate(kinds) if kind in rows.index]
        values = rows[key].astype(float).loc[[kinds[y] for y in ys]].tolist()
        marker = "D" if name == ALONE else "o"
        axes.plot(
            values,
            [y - 0.36 + place * step for y in ys],
            marker,
            color=colours[name],
            markersize=3.2 if name == ALONE else 4,
            ls="",
        )
    for y in range(1, len(kinds)):
        axes.axhline(y - 0.5, color="#e2e2e2", lw=0.6, zorder=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set(ylim=(len(kinds) - 0.5, -0.5), yticks=[])
    axes.set_xlabel("share" if key == "triggered_real" else "AUC")
    axes.locator_params(axis="x", nbins=4)
    axes.margins(x=0.08)
    axes.spines["left"].set_visible(False)


def _verdicts(axes: Axes, table: pd.DataFrame, kinds: list[str], panel: float) -> None:
    """Write the z-scores of every replacement to the right of the last panel."""
    import pandas as pd

    from r2m.report.figures.style import INK
    from r2m.report.numbers import number

    rows = table[table["variant"] == ALONE].set_index("kind")
    # Columns that are empty for the merges come as text from the CSV.
    numbers = rows[["norm_z", "cosine_z", "norm_stands_out", "cosine_stands_out"]].apply(
        pd.to_numeric, errors="coerce"
    )
    transform = axes.get_yaxis_transform()
    for offset, key, title in ((0.42, "norm_z", "Norm z"), (0.92, "cosine_z", "Cosine z")):
        place = 1 + offset / panel
        axes.text(place, -0.62, title, transform=transform, ha="right", va="bottom", size=6.5)
        for y, kind in enumerate(kinds):
            value, away = numbers.loc[kind, [key, f"{key[:-2]}_stands_out"]]
            axes.text(
                place,
                y,
                "–" if pd.isna(value) else number(value, 1).replace("-", "−"),
                transform=transform,
                ha="right",
                va="center",
                size=LABEL_SIZE,
                color=INK,
                weight="bold" if away == 1 else "normal",
            )


EXPERIMENT = Experiment(
    title="Uneven and hostile specialists",
    caption=(
        "One specialist replaced in turn by one trained on a tenth of the people, one trained with"
        " exchanged labels, random tensors of the same norms, the honest task vector times ten, and one"
        " with a backdoor: half of its fakes have a copy with a checkerboard in the corner that is"
        " labelled real, and is their pair in training. Checkpoints of the replacements are chosen on"
        " their own, altered val images; the merges keep the options that val chose for the honest set."
        " Look at how far each mark lies from the honest row of the same panel, and at the last panel for"
        " the row of the backdoor: the share of test fakes below the merge's val threshold once the"
        " trigger is drawn into them. Modified z-scores beyond 3.5 are what `r2m merge` warns of; false"
        " alarms are counted over all sets of three or more specialists. Three specialists that differ in"
        " direction are the least that can be judged, and an update that looks like an honest one, as a"
        " backdoor's can, is not singled out."
    ),
    options=HostileOptions,
    check=check,
    takes={"with_statistics": False},
    stages=stages,
    table=table,
    figure=figure,
    order=7,
)
