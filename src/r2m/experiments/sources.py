"""Reals of two sources in training: what becomes of the Real component, and of the other source's images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, ValidationError

from r2m.errors import R2MError
from r2m.evaluate.protocols import KEPT, EvaluationContext
from r2m.experiments.experiment import (
    ROOT,
    Experiment,
    ExperimentOptions,
    Factors,
    images_stages,
    merge_stage,
    trained_specialists,
    wrong_variants,
)
from r2m.merge import registry
from r2m.merge.variants import MergeVariant, rank_beyond
from r2m.options import Fraction, Name, Section, combinations, complaint, nearest, with_dotted
from r2m.plan.stage import Job, Stage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from r2m.core_params import CoreParams
    from r2m.evaluate.bench import Bench
    from r2m.merge.stages import Chosen
    from r2m.merge.tensors import TaskVectors
    from r2m.plan.plan import Plan
    from r2m.report.table import Table
    from r2m.session_files import MergeParts, SessionFiles

ONE, TWO = "A", "A+B"
BY = ["variant", "training", "core"]
MEASURES = ["first_share", "second_share", "mean_cosine"]


class SourcesOptions(ExperimentOptions):
    """R²M with reals of a second domain in training: is one Real direction still enough?"""

    domain: Name | None = Field(default=None, description="domain of the role test; default: the first")
    share: Fraction = Field(default=0.5, description="share of its people who are trained on")
    cores: dict[Name, Factors] = Field(
        default={"r2m": {}},
        min_length=1,
        description="enabled merge variant → dotted option → its values; {}: as it is",
    )


def check(params: CoreParams, options: SourcesOptions) -> Iterator[str]:
    """Yield a second domain that is none, and cores that a merge does not take."""
    key = "experiments.sources"
    if not options.enabled:
        return
    tests = _test_domains(params)
    if second_source(params, options) not in tests:
        yield f"{key}.domain: expected a domain with `role: test`{nearest(options.domain or '', tests)}"
    yield from wrong_variants(params, f"{key}.cores", options.cores, with_statistics=False)
    for name, grid in options.cores.items():
        if name in params.variants:
            yield from _wrong_cores(params, f"{key}.cores.{name}", name, grid)


def _wrong_cores(params: CoreParams, key: str, name: str, grid: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield what is wrong with the cores of one merge variant."""
    variant, method = params.merge.methods[name], registry.get(params.variants[name])
    for option in grid:
        if option in variant.tune:
            yield f"{key}.{option}: the variant tunes this option; expected another"
    for values in combinations({**grid, **variant.tune}):
        try:
            complete = method.options.model_validate(with_dotted(variant.options, values))
        except (ValidationError, R2MError) as error:
            text = complaint(error) if isinstance(error, ValidationError) else str(error)
            yield f"{key}: {text}"
            return
        if text := rank_beyond(complete, len(params.specialist_members)):
            yield f"{key}: {text}"
            return


def second_source(params: CoreParams, options: SourcesOptions) -> str | None:
    """Return the domain whose reals are trained on as well; None where there is none."""
    return options.domain or next(iter(_test_domains(params)), None)


def _test_domains(params: CoreParams) -> list[str]:
    return [name for name, domain in params.domains.items() if domain.role == "test"]


class SourcesPlan(Section):
    """What the experiment `sources` merges.

    domain: the one of which some people are trained on.
    generators: those trained on.
    variants: merge variants with their grids.
    cores: merge variant → dotted option → its values; every combination is a setting.
    """

    domain: str
    generators: list[str]
    variants: dict[str, MergeVariant]
    cores: dict[str, dict[str, list[Any]]]


def stages(plan: Plan, options: SourcesOptions) -> Sequence[Stage]:
    """Return the second domain's new split, all fakes anew, the trainings, task vectors and scores.

    Fakes are forged again since the donor of a face swap must not stand on the other side of the split; those
    of the second domain's data set are taken again, with the split of the people on them. Those in folders of
    the user's own show nobody of the second domain: they stay as they are.
    """
    params, folder = plan.params, ROOT / "sources"
    second = second_source(params, options)
    assert second is not None  # checked with the params
    dataset = params.domains[second].dataset
    forged_again = [
        name
        for name, generator in params.generators.items()
        if generator.forge or (dataset is not None and generator.dataset == dataset)
    ]

    def sets(image_sets: Sequence[str]) -> SessionFiles:
        return plan.files(image_sets, folder, [second, *forged_again])

    def split() -> Job:
        domain = plan.folder(second)
        return Job(
            "r2m.data.second_source:write_second_source",
            {},
            {"out": plan.folder(second, folder)},
            {"domain": domain, "share": options.share, "seed": params.seed},
            also=[domain / "manifest.parquet", domain / "landmarks.parquet"],
        )

    def forge(generator: str, outputs: Mapping[str, Path]) -> Job:
        faces = [plan.folder(name, folder) if name == second else plan.folder(name) for name in plan.domains]
        return plan.forge_job(generator, plan.fakes(generator), outputs, faces)

    def train(specialist: str, seed: str, outputs: Mapping[str, Path]) -> Job:
        members = plan.members[specialist]
        return plan.finetune_job(
            specialist,
            members,
            params.finetune_options(specialist),
            seed,
            outputs,
            files=sets([params.train_domain, second, *members]),
            state=f"sources/{specialist}",
        )

    faces = Stage(
        "sources_faces",
        {name: f"{folder}/faces/{second}/{name}.parquet" for name in ("manifest", "landmarks")},
        split,
        is_benchmarked=False,
        place="experiments/sources/faces",
    )
    fakes, trunk = images_stages(plan, "sources", forged_again, forge, also=[second])
    two = trained_specialists(plan, "sources", "specialist", list(plan.members), train)
    merged = SourcesPlan(
        domain=second,
        generators=plan.trained,
        variants={name: plan.tuned(name) for name in options.cores},
        cores=options.cores,
    )
    scored = merge_stage(
        plan,
        "sources",
        options.cores,
        {"plan": merged, "resamples": params.evaluate.resamples, "seed": params.seed},
        memory=4000,
        tuned_here=True,
        files=sets(plan.sets),
        inputs=lambda seed: {"two": two.parts(plan.members, seed)},
    )
    scored = replace(scored, name="two_sources")
    return [faces, fakes, trunk, two.finetune, two.task_vector, scored]


def run(
    bench: Bench, variants: Sequence[Chosen], two: MergeParts, plan: SourcesPlan, resamples: int, seed: int
) -> pd.DataFrame:
    """Merge both groups of specialists with every core, and score every val and test image.

    `two` are the parts of the same specialists trained with reals of both sources. The scores carry how many
    `resamples` of people the table draws, by which `seed`.
    """
    from r2m.merge.stages import read_same_base

    both = {
        "task_vectors": read_same_base(two.task_vectors, bench.base_hash)[0],
        "heads": read_same_base(two.heads, bench.base_hash)[0],
    }
    scores = source_scores(bench, both, plan)
    scores.attrs = {"domain": plan.domain, "resamples": str(resamples), "seed": str(seed)}
    return scores


def source_scores(bench: Bench, two: Mapping[str, TaskVectors], plan: SourcesPlan) -> pd.DataFrame:
    """Return the scores of every variant and core, on specialists of one source of reals and of two.

    `bench` holds the specialists of one source, `two` the `task_vectors` and `heads` of those of two. The
    images are the same. Columns: variant, training (`A`, `A+B`), core, tuned, `KEPT`, logit, and of the
    training: the shares of the first and second eigenvalue of its Gram matrix, and the cosine between its
    mean task vector and that of one source.
    """
    import pandas as pd

    from r2m.evaluate.tuned_merge import as_text, tuned_merge

    benches = {ONE: bench, TWO: replace(bench, task_vectors=two["task_vectors"], heads=two["heads"])}
    measures = {training: _measures(bench, own) for training, own in benches.items()}
    parts = []
    for name, variant in plan.variants.items():
        settings = product(benches.items(), combinations(plan.cores.get(name, {})))
        for (training, own), core in settings:
            options = with_dotted(variant.options, core)
            merge = tuned_merge(own, name, variant, plan.generators, options)
            scores = own.scores(own.updated(merge.update), merge.head)[[*KEPT, "logit"]]
            texts = {"core": as_text(core), "tuned": as_text(merge.chosen)}
            parts.append(scores.assign(variant=name, training=training, **texts, **measures[training]))
    return pd.concat(parts, ignore_index=True)[[*BY, "tuned", *MEASURES, *KEPT, "logit"]]


def _measures(first: Bench, own: Bench) -> dict[str, float]:
    from r2m.evaluate.spectrum import eigenvalue_shares, mean_cosine

    shares = eigenvalue_shares(own.task_vectors)
    values = [shares[0], shares[1], mean_cosine(first.task_vectors, own.task_vectors)]
    return dict(zip(MEASURES, values, strict=True))


def second_intervals(
    scores: pd.DataFrame, domain: str, context: EvaluationContext, resamples: int, seed: int
) -> pd.DataFrame:
    """Return one row per setting (`BY`): mean AUC over the sets of `domain`, b, with limits b_low, b_high.

    `core_gain` is b less that of the first core of the same variant and training, `source_gain` that of the
    same variant and core trained with reals of one source; both with limits `…_low`, `…_high`. They are NaN
    where there is nothing to compare with. Intervals are from `resamples` of people, drawn alike for all.
    """
    from sklearn.metrics import roc_auc_score

    from r2m.evaluate.bootstrap import interval, resampled_aucs
    from r2m.evaluate.score_matrix import people, set_rows

    test = scores[(scores["split"] == "test") & (scores["domain"] == domain)]
    logits = test.pivot_table("logit", BY, "image_id", sort=False)
    units = test.drop_duplicates("image_id").set_index("image_id").loc[logits.columns].reset_index()
    sets = set_rows(units, context, "sources")
    matrix = logits.to_numpy(float)
    aucs = [[roc_auc_score(test_set.labels, row[test_set.rows]) for test_set in sets] for row in matrix]
    mean = np.array(aucs).mean(axis=1)
    drawn = resampled_aucs(matrix, sets, people(units, context), resamples, seed).mean(axis=2)
    settings = logits.index.to_frame(index=False)
    table = settings.assign(b=mean)
    table["b_low"], table["b_high"] = interval(drawn, mean)
    rows = {tuple(setting): place for place, setting in enumerate(settings.itertuples(index=False))}
    first = {key: group["core"].iloc[0] for key, group in settings.groupby(["variant", "training"])}
    for name in ("core_gain", "source_gain"):
        others = [
            rows.get((variant, training, first[variant, training]))
            if name == "core_gain"
            else rows.get((variant, ONE, core))
            for variant, training, core in rows
        ]
        gains = np.full((3, len(rows)), np.nan)
        for place, other in enumerate(others):
            if other is not None and other != place:
                gain = mean[place] - mean[other]
                gains[:, place] = gain, *interval(drawn[:, place] - drawn[:, other], gain)
        table[[name, f"{name}_low", f"{name}_high"]] = gains.T
    return table


def table(source: Path, context: EvaluationContext) -> Table:
    """Return the table of the scores in `source`: one row per merge, training and core."""
    from r2m.evaluate.bootstrap import LEVEL
    from r2m.evaluate.experiment_means import protocol_means, read_notes, read_settings
    from r2m.report.table import Table

    notes = read_notes(source, "sources", ["domain", "resamples", "seed"])
    domain, resamples = notes["domain"], int(notes["resamples"])
    scores = read_settings(source, [*BY, *MEASURES, "image_id", "identity", "video"])
    means = protocol_means(scores, BY, context)
    intervals = second_intervals(scores, domain, context, resamples, int(notes["seed"]))
    kept = ["val_auc", *(name for name in ("in_distribution", "unseen_generator") if name in means)]
    frame = means[[*BY, *kept]].merge(intervals, on=BY)
    frame = frame.merge(scores[[*BY, *MEASURES]].drop_duplicates(), on=BY)
    frame.insert(0, "merge", frame["variant"].map(context.variant_label))
    one, two = (context.domain_label(name) for name in (_training_domain(context), domain))
    reals = {ONE: one, TWO: f"{one} and {two}"}
    frame.insert(3, "reals", frame["training"].map(reals))
    test = scores[(scores["split"] == "test") & (scores["domain"] == domain)].drop_duplicates("image_id")
    titles = {
        "merge": "Merge",
        "reals": "Trained on",
        "core": "Core",
        "val_auc": f"Val: {one}",
        "in_distribution": f"{one}: trained",
        "unseen_generator": f"{one}: unseen",
        "b": two,
        "b_low": "from",
        "b_high": "to",
        "core_gain": "By core",
        "core_gain_low": "from ",
        "core_gain_high": "to ",
        "source_gain": "By reals",
        "source_gain_low": "from  ",
        "source_gain_high": "to  ",
        "first_share": "λ₁ / Σλ",
        "second_share": "λ₂ / Σλ",
        "mean_cosine": "cos",
    }
    return Table(
        frame,
        {key: title for key, title in titles.items() if key in frame},
        caption=(
            f"R²M on specialists trained on {one} alone, and on {one} and some people of {two}; all of it"
            f" is tested on the same images. Options are chosen for each row on val images of {one}. {two}:"
            f" mean AUC over generators on {_count(test, 0)} reals of {test['identity'].nunique()} people who"
            f" were never trained on, with the {100 * LEVEL:g} % interval from {resamples} resamples of"
            f" these people; by core: less that of the first core; by reals: less that of specialists trained"
            f" on {one} alone. λ₁, λ₂: greatest eigenvalues of the task vectors' Gram matrix; cos: between"
            f" the mean task vector and that of training on {one} alone. Best of a merge bold, second"
            " underlined."
        ),
        label="sources",
        best=[key for key in (*kept, "b") if key in frame],
        section="variant",
    )


def _training_domain(context: EvaluationContext) -> str:
    return next(name for name, domain in context.domains.items() if domain.role == "train")


def _count(units: pd.DataFrame, label: int) -> int:
    return int((units["label"] == label).sum())


def figure(table: pd.DataFrame, context: EvaluationContext) -> Figure:
    """Draw one row per core and training, below the merge.

    The other source's AUC has its interval.
    """
    from r2m.report.figures.dots import PROTOCOL_COLOURS, PROTOCOL_MARKS, Series, dot_rows
    from r2m.report.numbers import number

    one = table["reals"].iloc[0]
    second = table["reals"].iloc[-1].removeprefix(f"{one} and ")
    names = {
        "val_auc": f"Val ({one})",
        "in_distribution": f"{one}: trained",
        "unseen_generator": f"{one}: unseen",
    }
    marks = [
        Series(name, table[key].tolist(), PROTOCOL_COLOURS[key], *PROTOCOL_MARKS[key])
        for key, name in names.items()
        if key in table
    ]
    other = Series(
        second,
        table["b"].tolist(),
        PROTOCOL_COLOURS["cross_dataset"],
        *PROTOCOL_MARKS["cross_dataset"],
        low=table["b_low"].tolist(),
        high=table["b_high"].tolist(),
    )
    measures = table.drop_duplicates("training")
    shares = "; ".join(
        f"{row['reals']}: {number(row['first_share'], 2)} and {number(row['second_share'], 2)}"
        for row in measures.to_dict("records")
    )
    return dot_rows(
        list(table["merge"]),
        [
            ", ".join(filter(None, [reals, core]))
            for reals, core in zip(table["reals"], table["core"], strict=True)
        ],
        [*marks, other],
        f"Mean AUC by what specialists were trained on, and by core. {second}: people whom nobody was trained"
        f" on, 95 % intervals over people. Share of the first and second eigenvalue of the task vectors' Gram"
        f" matrix: {shares}. Numbers: val.",
    )


EXPERIMENT = Experiment(
    title="Reals of two sources",
    caption=(
        "Is one Real direction enough when the reals come from two sources? Specialists trained with"
        " reals of the training domain alone (those of the main run), and with those of some people of a"
        " second domain beside them, are merged with different cores. The other people of the second"
        " domain are tested on, the same for all rows. In this experiment all forgeries are made anew, so"
        " that no donor of a face swap stands on the other side of the split; a forgery that is fitted"
        " (the autoencoder) saw the training reals of both. Choices rest on val images of the training"
        ' domain, the same for all rows. Compare cores within one training ("by core") and trainings with'
        ' one core ("by reals"), each with an interval over people: the fewer of them are left to test on,'
        " the wider it is, and what it holds zero in cannot be told from no difference. The eigenvalue"
        " shares say whether the task vectors share a second direction; reals of the second domain are a"
        " small part of the batches, as of the images."
    ),
    options=SourcesOptions,
    check=check,
    stages=stages,
    table=table,
    figure=figure,
    order=10,
)
