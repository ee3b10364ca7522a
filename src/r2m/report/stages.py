"""The stages of the report: from files of results to tables, figures, cards and pages.

Figures are written as `out`.pdf, .svg and .png; `out` is a folder for tables and pages, and else a file.
Every function imports what it needs: jobs are many, and torch or sklearn take longer than most of them.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from r2m import manifest
from r2m.data.options import FacesOptions
from r2m.errors import R2MError
from r2m.evaluate.options import Aggregation
from r2m.evaluate.protocols import MODEL_KEYS, EvaluationContext, read_table
from r2m.files import write_text
from r2m.report.origins import CardContext
from r2m.seeding import rng

logger = logging.getLogger(__name__)


def tables(
    *,
    scores: Sequence[Path],
    context: EvaluationContext,
    resamples: int,
    seed: int,
    reference: str | None,
    video: Aggregation,
    built_in: Sequence[str],
    members: Mapping[str, Sequence[str]],
    out: Path,
) -> None:
    """Write all files of results/tables into the folder `out`; merges stand in the order of their scores.

    With several seeds of training, numbers are means over them. Intervals are from `resamples` resamples of
    people, drawn with `seed`; `reference` is the model that the others are tested against. `video` says what
    a video's score is of those of its frames, `built_in` which generators are built-in forgeries, and
    `members` which generators each specialist was trained on.

    Raises:
        R2MError: there are no scores of the reference, or files of scores that do not fit together.
    """
    from r2m.evaluate.calibration import reliability_table
    from r2m.evaluate.closest import CLOSEST_KEYS, closest_table, own_calibrations
    from r2m.evaluate.cross import cross_auc
    from r2m.evaluate.delong import comparisons
    from r2m.evaluate.df40 import PART_KEYS, df40_means
    from r2m.evaluate.evaluation import Evaluation, by_seed, evaluate, read_scores
    from r2m.evaluate.means import (
        beside_videos,
        mean_intervals,
        over_trainings,
        panel_means,
        protocol_metrics,
    )
    from r2m.evaluate.operating import calibration_table, operating_table
    from r2m.evaluate.seeds import mean_over_seeds, pooled
    from r2m.evaluate.video import evaluate_videos, video_table
    from r2m.report.closest_table import closest_specialists_table
    from r2m.report.main_table import interval_table, main_table
    from r2m.report.operating_table import operating_points_table
    from r2m.report.protocol_tables import one_against_all_table, protocol_table
    from r2m.report.table import write_csv

    files = by_seed(scores)
    runs = {
        trained: evaluate((read_scores(path) for path in paths), context, resamples, seed)
        for trained, paths in files.items()
    }
    evaluations = list(runs.values())
    mean = pooled(evaluations)
    models = mean.models
    if reference is not None and reference not in set(models["model"]):
        raise R2MError(
            f"reference {reference!r}: no scores of this model; expected one of {', '.join(models['model'])}"
        )
    tested = pd.concat(
        [comparisons(run, reference).assign(seed=trained) for trained, run in runs.items()], ignore_index=True
    )
    made = [evaluate_videos(run, context, resamples, seed, video) for run in evaluations]
    video_runs = [run for run in made if run is not None]
    videos = pooled(video_runs) if video_runs else None

    def averaged(function: Callable[[Evaluation], pd.DataFrame], keys: Sequence[str]) -> pd.DataFrame:
        """Return means over the test sets of the frames, and of the videos beside them."""
        of_videos = None if videos is None else over_trainings(function, videos, video_runs)
        return beside_videos(over_trainings(function, mean, evaluations), of_videos, keys)

    means = averaged(lambda run: mean_intervals(run, reference, context), ["protocol", "part"])
    df40 = averaged(lambda run: df40_means(run, context), PART_KEYS)
    by_panel = [panel_means(run.auc, run.models, context) for run in evaluations]
    curves = [reliability_table(run.matrix, run.sets, run.models) for run in evaluations]
    crossed = [cross_auc(run, context, resamples, seed) for run in evaluations]
    points, errors = (
        mean_over_seeds([function(run, context, resamples, seed) for run in evaluations], keys)
        for function, keys in (
            (operating_table, [*MODEL_KEYS, "protocol", "fpr"]),
            (calibration_table, [*MODEL_KEYS, "protocol"]),
        )
    )
    calibrations = {
        trained: own_calibrations((read_scores(path) for path in paths), members, context)
        for trained, paths in files.items()
    }
    closest = mean_over_seeds(
        [
            closest_table(run, calibrations[trained], members, context, resamples, seed)
            for trained, run in runs.items()
        ],
        CLOSEST_KEYS,
    )
    frames = {
        "auc": mean.auc,
        "models": models,
        "dumbbell": mean_over_seeds(by_panel, [*MODEL_KEYS, "label", "group"], ["auc"]),
        "intervals": means,
        "reliability": mean_over_seeds(curves, [*MODEL_KEYS, "protocol", "calibrated", "bin"]),
        "operating": points,
        "calibration": errors,
        "closest": closest,
        "video": video_table(videos),
        "cross_auc": mean_over_seeds(crossed, [*MODEL_KEYS, "test_set", "real_domain"], ["auc"]),
        "protocols": df40,
    }
    aucs, video_aucs = ([run.auc for run in each] for each in (evaluations, video_runs))
    sets = [test_set.item for test_set in mean.sets]
    rendered = {
        "main": main_table(aucs, models, context, video_seeds=video_aucs),
        "main_intervals": interval_table(means, tested, models, resamples, len(evaluations)),
        "protocols": protocol_table(df40, models, sets, context, built_in),
        "operating": operating_points_table(points, errors),
        "closest": closest_specialists_table(closest, models, context),
    }
    one_against_all_table(aucs, video_aucs, models, sets, context, built_in).write(out / "protocols_p4")
    for name, frame in frames.items():
        write_csv(frame, out / f"{name}.csv")
    write_csv(tested, out / "delong.csv", "%.6g")
    for name, table in rendered.items():
        write_text(out / f"{name}.md", table.to_markdown())
        write_text(out / f"{name}.tex", table.to_latex())
    metrics = protocol_metrics(mean.auc, list(models["model"]))
    write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def heatmap(*, table: Path, models: Path, context: EvaluationContext, out: Path) -> None:
    """Draw the AUC of every model on every test set, from auc.csv and models.csv."""
    from r2m.report.figures.heatmap import draw_heatmap
    from r2m.report.figures.style import save

    save(draw_heatmap(read_table(table), read_table(models), context), out)


def dumbbell(*, means: Path, out: Path) -> None:
    """Draw merges against weight averaging and joint training, from dumbbell.csv."""
    from r2m.report.figures.dumbbell import draw_dumbbell
    from r2m.report.figures.style import save

    save(draw_dumbbell(read_table(means)), out)


def intervals(*, means: Path, context: EvaluationContext, out: Path) -> None:
    """Draw the mean AUCs of all models with their confidence intervals, from intervals.csv."""
    from r2m.report.figures.forest import draw_forest
    from r2m.report.figures.style import save

    save(draw_forest(read_table(means), context), out)


def reliability(*, table: Path, models: Path, context: EvaluationContext, out: Path) -> None:
    """Draw the reliability curves of all models, from reliability.csv and models.csv."""
    from r2m.report.figures.reliability import draw_reliability
    from r2m.report.figures.style import save

    save(draw_reliability(read_table(table), read_table(models), context), out)


def spectra(*, reports: Sequence[Path], context: EvaluationContext, title: str, out: Path) -> None:
    """Draw the singular values in the reports of residuals, each named after its specialist."""
    from r2m.report.figures.spectra import draw_spectra, read_report
    from r2m.report.figures.style import save

    save(draw_spectra({path.stem: read_report(path) for path in reports}, context, title), out)


def pipeline(*, report: Path, chosen: Path, context: EvaluationContext, title: str, out: Path) -> None:
    """Draw the steps of a merge by R²M, from its report and the options that tuning chose."""
    from r2m.report.figures.pipeline import draw_pipeline, read_merge_report, read_tuned
    from r2m.report.figures.style import save

    save(draw_pipeline(read_merge_report(report), read_tuned(chosen), context, title), out)


def tuning(*, candidates: Mapping[str, Path], labels: Mapping[str, str], out: Path) -> None:
    """Draw the val AUC of the candidates of every variant, by its label and in the order of `labels`."""
    from r2m.report.figures.candidates import draw_candidates, read_candidates
    from r2m.report.figures.style import save

    save(draw_candidates({name: read_candidates(path) for name, path in candidates.items()}, labels), out)


def contact_sheet(*, fakes: Path, reals: Sequence[Path], label: str, out: Path) -> None:
    """Draw some fakes of a generator beside their reals, its own ones included; `label` is its name."""
    from r2m.report.figures.contact_sheet import draw_contact_sheet
    from r2m.report.figures.style import save

    images = manifest.read(fakes)
    sources = manifest.concat([*map(manifest.read, reals), images[images["label"] == 0]])
    stream = rng(0, "contact sheet", str(images["generator"].iloc[-1]))
    save(draw_contact_sheet(images, sources, label, stream), out)


def data_card(
    *, manifests: Sequence[Path], receipts: Sequence[Path], cues: Path, context: CardContext, out: Path
) -> None:
    """Write the data card of all image sets, with the table of cheap cues.

    Every manifest has its skipped.csv beside it.
    """
    from r2m.data.sources import read_receipt
    from r2m.report.data_card import compose_data_card, read_skipped

    images = manifest.concat(manifest.read(path) for path in manifests)
    skipped = {path.parent.name: read_skipped(path.parent / "skipped.csv") for path in manifests}
    licences = [read_receipt(path) for path in receipts]
    write_text(out, compose_data_card(images, skipped, licences, read_table(cues), context))


def model_card(
    *,
    model: Path,
    report: Path,
    chosen: Path,
    base: Path,
    specialists: Mapping[str, Path],
    manifests: Sequence[Path],
    receipts: Sequence[Path],
    table: Path,
    models: Path,
    intervals: Path,
    operating: Path,
    calibration: Path,
    onnx: Path,
    benchmarks: Mapping[str, Mapping[str, Path]],
    faces: FacesOptions,
    context: CardContext,
    device: str,
    precision: str,
    label: str,
    out: Path,
) -> None:
    """Write the card of a merged model that was scored on `device` in `precision`.

    `manifests` are those of the training sets, `table`, `models`, `intervals`, `operating`,
    `calibration` and `onnx` files of results/tables, and `benchmarks` the benchmark files by stage and job,
    some of which may be missing.

    Raises:
        R2MError: a file that is missing or of another kind, or a model that the tables do not hold.
    """
    from r2m.models.precision import resolve_device
    from r2m.report.model_card import Sources, compose_model_card
    from r2m.report.settings import is_reduced

    sources = Sources(
        *(model, report, chosen, base, specialists, manifests, receipts),
        *(table, models, intervals, operating, calibration, onnx, benchmarks),
    )
    reduced = is_reduced(resolve_device(device), precision)
    write_text(out, compose_model_card(sources, faces, label, context, reduced))


def settings(*, models: Sequence[Path], params: Mapping[str, Any], out: Path) -> None:
    """Write the record of the run that made `models`, with the params as they ran, defaults included."""
    from r2m.report.settings import compose_settings

    write_text(out, compose_settings(models, params))


def runtimes(*, benchmarks: Mapping[str, Mapping[str, Path]], out: Path) -> None:
    """Write the sums of the benchmark files below a folder as CSV; seconds with one decimal, whole MiB."""
    from r2m.report.runtimes import read_benchmarks, runtime_table
    from r2m.report.table import write_csv

    jobs = read_benchmarks(benchmarks)
    if jobs.empty:
        logger.warning("there are no benchmark files; the results were made elsewhere")
    summed = runtime_table(jobs)
    seconds = {name: summed[name].round(1) for name in ("cpu_seconds", "wall_seconds")}
    peak = summed["peak_mib"].round().astype("Int64")
    write_csv(summed.assign(**seconds, peak_mib=peak), out, float_format=None)


def pages(*, sources: Sequence[Path], out: Path) -> None:
    """Write a page NAME.html into the folder `out` for every NAME.md and NAME.csv.

    Raises:
        R2MError: a file that is missing or of another kind, or two of one name.
    """
    from r2m.report.pages import page

    names = [path.stem for path in sources]
    for path in sources:
        if names.count(path.stem) > 1:
            raise R2MError(
                f"{path}: two files would make the page {path.stem}.html; expected different names"
            )
    for path in sources:
        write_text(out / f"{path.stem}.html", page(path))
