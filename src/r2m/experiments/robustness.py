"""How AUC falls as test images are perturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, create_model, model_validator

from r2m.data.perturbations import PERTURBATIONS
from r2m.evaluate.protocols import KEPT, PROTOCOLS, EvaluationContext
from r2m.experiments.experiment import Experiment, ExperimentOptions, Names, scores_stage
from r2m.options import each_once
from r2m.plan.stage import Job, Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from r2m.plan.plan import Plan
    from r2m.report.table import Table
    from r2m.session_files import Compute, SessionFiles

LABELS = {"base": "Base (linear probe)", "joint": "Joint training"}
STYLES = {"base": ":", "joint": "--"}
MARGIN, GAP, LEFT, HEIGHT, WIDTH = 0.1, 0.12, 0.56, 1.35, 7.0


class _Options(ExperimentOptions):
    """AUC on test images of the training domain that were perturbed; a perturbation without levels is off."""

    variants: Names = Field(default=["weight_averaging", "r2m"], description="enabled merge variants")
    people: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="share of the people whose test images are taken"
    )

    @model_validator(mode="after")
    def _levels(self) -> _Options:
        if self.enabled and not self.levels:
            raise ValueError("expected levels of at least one perturbation")
        return self

    @property
    def levels(self) -> dict[str, list[Any]]:
        """Perturbation → its levels, of those that are on."""
        return {name: list(getattr(self, name)) for name in PERTURBATIONS if getattr(self, name)}


if TYPE_CHECKING:
    RobustnessOptions = _Options
else:
    _FIELDS: dict[str, Any] = {
        name: (
            Annotated[list[perturbation.level], AfterValidator(each_once)],
            Field(default=[], description=perturbation.description),
        )
        for name, perturbation in PERTURBATIONS.items()
    }
    RobustnessOptions = create_model(
        "RobustnessOptions", __base__=_Options, __doc__=_Options.__doc__, **_FIELDS
    )


def stages(plan: Plan, options: RobustnessOptions) -> Sequence[Stage]:
    """Return the stage of the scores: of the base's head, of joint training, and of merges."""
    domain = plan.params.train_domain

    def job(seed: str) -> Job:
        from r2m.plan.plan import PROBE

        models = {"base": PROBE, "joint": plan.model("joint", "joint", seed)}
        models |= {name: plan.model("merge", name, seed) for name in options.variants}
        # Perturbed images have no cached activations.
        files = replace(plan.files([domain, *plan.generators]), trunks=())
        return Job(
            "r2m.experiments.robustness:run",
            {"files": files, "models": dict(sorted(models.items()))},
            stage.paths(seed=seed),
            {
                "domain": domain,
                "generators": plan.generators,
                "people": options.people,
                "levels": options.levels,
                "batch_size": plan.params.evaluate.batch_size,
                "seed": plan.params.seed,
                "compute": plan.compute,
            },
        )

    stage = scores_stage(plan, "robustness", job, memory=3000)
    return [stage]


def run(
    *,
    files: SessionFiles,
    models: Mapping[str, Path],
    domain: str,
    generators: Sequence[str],
    people: float,
    levels: Mapping[str, Sequence[Any]],
    batch_size: int,
    seed: int,
    compute: Compute,
    scores: Path,
    threads: int,
) -> None:
    """Score the training domain's test images with several models, as they are and at every level.

    A model is a head, or tensors that are laid over the base.
    """
    from r2m.evaluate.perturbed import perturbed_rows, perturbed_scores
    from r2m.evaluate.scores import write
    from r2m.models import checkpoint
    from r2m.session import open_session

    session = open_session(files, compute, threads)
    tensors = {name: checkpoint.load(path)[0] for name, path in models.items()}
    rows = perturbed_rows(session.inputs.rows, domain, generators, people, seed)
    scored = perturbed_scores(session, compute.backbone, tensors, rows, levels, batch_size, seed)
    write(scored, {"experiment": "robustness", "models": ",".join(models)}, scores)


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: one row per perturbation, level and model."""
    from r2m.evaluate.bootstrap import LEVEL
    from r2m.evaluate.experiment_means import read_columns
    from r2m.evaluate.perturbed import CLEAN, mean_aucs
    from r2m.report.table import Table

    columns = ["perturbation", "level", "model", *KEPT, "logit"]
    means = mean_aucs(read_columns(source, columns), context)
    known = [name for name in PROTOCOLS if name in means]
    order = {name: place for place, name in enumerate([*LABELS, *context.variants])}
    settings = means.groupby(["perturbation", "level"], sort=False).ngroup()
    means = means.iloc[np.lexsort((means["model"].map(order), settings))].reset_index(drop=True)
    titles = {CLEAN: "Clean", **{name: perturbation.title for name, perturbation in PERTURBATIONS.items()}}
    means.insert(0, "setting", (means["perturbation"].map(titles) + " " + means["level"]).str.strip())
    means.insert(1, "name", [LABELS.get(model) or context.variant_label(model) for model in means["model"]])
    headings = {"setting": "Perturbation", "name": "Model"}
    for name in known:
        headings |= {name: PROTOCOLS[name], f"{name}_low": "Low", f"{name}_high": "High"}
    return Table(
        means,
        headings,
        caption=(
            "Mean AUC on test images of the training domain as they are and perturbed, with"
            f" {100 * LEVEL:g} % intervals (low, high) from {context.resamples} bootstrap resamples of"
            " people. Sizes in pixels are those of the detector's input. Best of a level bold, second"
            " underlined."
        ),
        label="robustness",
        best=known,
        section="setting",
    )


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw a column per perturbation, a row per protocol and a line per model.

    Each panel begins with the images as they are.
    """
    import pandas as pd
    from matplotlib.lines import Line2D

    from r2m.evaluate.perturbed import CLEAN
    from r2m.report.figures.framing import legend_above, text_below
    from r2m.report.figures.style import KIND_COLOURS, add_axes, method_colour, new_figure, styled, wrap

    protocols = [name for name in PROTOCOLS if name in table]
    kinds = [name for name in dict.fromkeys(table["perturbation"]) if name != CLEAN]
    names = table.drop_duplicates("model").set_index("model")["name"]
    colours = {name: KIND_COLOURS.get(name) or method_colour(name) for name in names.index}
    clean = table[table["perturbation"] == CLEAN]
    counts = [table.loc[table["perturbation"] == kind, "level"].nunique() for kind in kinds]
    free = WIDTH - LEFT - MARGIN - GAP * (len(kinds) - 1)
    # Panels are as wide as they have levels, and never too narrow for their title.
    shares = np.maximum(np.array(counts) + 1.0, 4.0)
    widths = free * shares / shares.sum()
    legend = wrap(
        "Mean AUC over the test sets of a protocol; bands: 95 % intervals from resampled people. The first"
        " point (–) of every panel is of the images as they are.",
        6.5,
        WIDTH - 2 * MARGIN,
    )
    above, between = 0.42 + 0.16 * ((len(names) - 1) // 6), 0.34
    below = 0.4 + 0.13 * (legend.count("\n") + 1)
    total = above + len(protocols) * HEIGHT + (len(protocols) - 1) * between + below
    with styled():
        drawn = new_figure(WIDTH, total)
        for row, protocol in enumerate(protocols):
            low, high = table[f"{protocol}_low"].min(), table[f"{protocol}_high"].max()
            for column, kind in enumerate(kinds):
                left = LEFT + widths[:column].sum() + GAP * column
                axes = add_axes(drawn, left, above + row * (HEIGHT + between), widths[column], HEIGHT)
                part = pd.concat([clean, table[table["perturbation"] == kind]])
                for name in names.index:
                    own = part[part["model"] == name]
                    x = np.arange(len(own))
                    limits = own[f"{protocol}_low"], own[f"{protocol}_high"]
                    axes.fill_between(x, *limits, color=colours[name], alpha=0.08, lw=0)
                    style = STYLES.get(name, "-")
                    axes.plot(x, own[protocol], color=colours[name], ls=style, lw=1.2, marker="o", ms=2)
                axes.set_ylim(low - 0.01, min(1.0, high + 0.01))
                axes.set_xticks(np.arange(counts[column] + 1), ["–", *dict.fromkeys(_levels(table, kind))])
                axes.tick_params(axis="x", labelsize=6)
                axes.set_xlim(-0.25, counts[column] + 0.25)
                axes.axhline(0.5, color="#cccccc", lw=0.6, zorder=0)
                axes.grid(axis="y")
                if row == 0:
                    axes.set_title(PERTURBATIONS[kind].axis, fontsize=7.5)
                if column == 0:
                    axes.set_ylabel(PROTOCOLS[protocol])
                else:
                    axes.tick_params(axis="y", labelleft=False)
        handles = [
            Line2D([], [], color=colours[name], ls=STYLES.get(name, "-"), label=names[name])
            for name in names.index
        ]
        legend_above(drawn, handles, MARGIN, 6, columnspacing=1.2)
        text_below(drawn, legend, MARGIN)
    return drawn


def _levels(table: pd.DataFrame, kind: str) -> list[str]:
    """Return the levels of a perturbation as text, in their order."""
    levels = table.loc[table["perturbation"] == kind, "level"].astype(float)
    return [f"{level:g}".replace("0.", ".", 1) if level < 1 else f"{level:g}" for level in levels]


EXPERIMENT = Experiment(
    title="Robustness to perturbations",
    caption=(
        "Mean AUC on test images of the training domain under JPEG compression, Gaussian blur, Gaussian"
        " noise and scaling down and up again (levels in `params.yaml`), against the same images as they"
        " are. Reals and fakes are perturbed alike, at the detector's own resolution; noise is seeded by"
        " the image. Bands are 95 % intervals from resampled people, the same people at all levels, of the"
        " share of people that `params.yaml` names. Look at how steeply each line falls from its first"
        " point, and whether lines cross: bands that overlap say little about levels, since all models see"
        " the same images."
    ),
    options=RobustnessOptions,
    stages=stages,
    table=table,
    figure=figure,
    order=8,
)
