"""Stages of the report: figures, contact sheets, cues, cards and pages, and what the report says of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2m.plan.plan import BASE, BENCHMARKS, FORMATS, PROBE, RESULTS, Plan, receipt
from r2m.plan.stage import Captioned, Job, Stage
from r2m.report.origins import CardContext

Benchmarks = dict[str, dict[str, Path]]

DATA_CARD = RESULTS / "data_card.md"
MODEL_CARD = RESULTS / "model_card.md"
SETTINGS = RESULTS / "settings.md"
RUNTIMES = RESULTS / "runtimes.csv"
TABLES = RESULTS / "tables"
CUES = TABLES / "cues.csv"
ONNX = TABLES / "onnx.json"
# What the report shows as a page → the file of its caption, its category and its name there.
PAGES = {
    TABLES / "main.md": ("main_table", "Results", "Mean AUC of every model"),
    TABLES / "main_intervals.md": (
        "main_intervals",
        "Results",
        "Mean AUC with confidence intervals (table)",
    ),
    TABLES / "protocols.md": ("protocols", "Results", "Mean AUC by the protocols of DF40"),
    TABLES / "protocols_p4.md": ("protocols_p4", "Results", "Each specialist against all generators"),
    TABLES / "auc.csv": ("auc", "Results", "All metrics on every test set"),
    TABLES / "operating.md": ("operating", "Results", "Operating points and calibration"),
    TABLES / "closest.md": ("closest", "Results", "Which specialist responds most"),
    TABLES / "delong.csv": ("delong", "Results", "DeLong's tests"),
    TABLES / "cross_auc.csv": ("cross_auc", "Results", "Fakes against reals of another domain"),
    DATA_CARD: ("data_card", "Data and model", "Data card"),
    MODEL_CARD: ("model_card", "Data and model", "Model card"),
    SETTINGS: ("settings", "Settings", "Params, versions and digests"),
    RUNTIMES: ("runtimes", "Settings", "Runtimes"),
}


def stages(plan: Plan, earlier: Sequence[Stage]) -> list[Stage]:
    """Return the stages of a plan that readers see the outputs of; they tell what the `earlier` ones took."""
    benchmarks = benchmark_files(earlier)
    return [
        heatmap(plan),
        dumbbell(plan),
        intervals(plan),
        reliability(plan),
        spectra(plan),
        pipeline(plan),
        tuning(plan),
        contact_sheet(plan),
        cues(plan),
        onnx(plan),
        data_card(plan),
        model_card(plan, benchmarks),
        settings(plan),
        runtimes(plan, benchmarks),
        pages(plan),
    ]


def benchmark_files(stages: Sequence[Stage]) -> Benchmarks:
    """Return the benchmark files of the jobs of some stages, by stage and job."""
    files: Benchmarks = {}
    for stage in stages:
        for wildcards in stage.instances if stage.is_benchmarked else ():
            path = Path(stage.benchmark.format(**wildcards))
            name, *job = path.relative_to(BENCHMARKS).with_suffix("").parts
            files.setdefault(name, {})["/".join(job)] = path
    return files


def figure(
    name: str,
    inputs: Mapping[str, Any],
    values: Mapping[str, Any],
    category: str,
    result: str,
    function: str = "",
) -> Stage:
    """Return the stage of a figure that there is one of, drawn by the function of its name or another."""

    def job() -> Job:
        return Job(
            f"r2m.report.stages:{function or name}", inputs, {"out": RESULTS / "figures" / name}, values
        )

    return Stage(
        f"figure_{name}",
        figure_files(f"results/figures/{name}"),
        job,
        is_benchmarked=False,
        place=f"figures/{name}",
        report={"svg": Captioned(name, category, {"result": result})},
    )


def figure_files(path: str) -> dict[str, str]:
    """Return the files of a figure in all formats."""
    return {suffix: f"{path}.{suffix}" for suffix in FORMATS}


def heatmap(plan: Plan) -> Stage:
    """AUC of every model on every test set."""
    inputs = {"table": TABLES / "auc.csv", "models": TABLES / "models.csv"}
    return figure(
        "heatmap", inputs, {"context": plan.context}, "Results", "AUC of every model on every test set"
    )


def dumbbell(plan: Plan) -> Stage:
    """Merges between averaging and joint training."""
    inputs = {"means": TABLES / "dumbbell.csv"}
    return figure("dumbbell", inputs, {}, "Results", "Merges against averaging and joint training")


def intervals(plan: Plan) -> Stage:
    """Mean AUC with confidence intervals."""
    inputs = {"means": TABLES / "intervals.csv"}
    title = "Mean AUC with confidence intervals (figure)"
    return figure("intervals", inputs, {"context": plan.context}, "Results", title)


def reliability(plan: Plan) -> Stage:
    """Reliability curves."""
    inputs = {"table": TABLES / "reliability.csv", "models": TABLES / "models.csv"}
    return figure("reliability", inputs, {"context": plan.context}, "Results", "Reliability curves")


def tuning(plan: Plan) -> Stage:
    """Val AUC of every candidate."""
    candidates = {
        name: plan.chosen(name, plan.seeds[0]).with_name("candidates.csv") for name in plan.variants
    }
    labels = {name: plan.label(name) for name in plan.variants}
    return figure(
        "tune",
        {"candidates": candidates},
        {"labels": labels},
        "Method",
        "Val AUC of every candidate",
        "tuning",
    )


def variant_figure(plan: Plan, name: str, result: str, inputs: Any) -> Stage:
    """Return the stage of a figure of each merge by R²M, with the first seed."""

    def job(variant: str) -> Job:
        values = {"context": plan.context, "title": plan.label(variant)}
        out = {"out": RESULTS / "figures" / name / variant}
        return Job(f"r2m.report.stages:{name}", inputs(variant), out, values)

    return Stage(
        f"figure_{name}",
        figure_files(f"results/figures/{name}/{{variant}}"),
        job,
        [{"variant": variant} for variant in plan.r2m_variants],
        is_benchmarked=False,
        place=f"figures/{name}",
        report={"svg": Captioned(name, "Method", {"result": result, "variant": "{variant}"})},
    )


def spectra(plan: Plan) -> Stage:
    """Singular values of task vectors and residuals."""

    def inputs(variant: str) -> dict[str, Any]:
        return {"reports": list(plan.residuals(variant, plan.seeds[0], ".json").values())}

    return variant_figure(plan, "spectra", "Singular values of task vectors and residuals", inputs)


def pipeline(plan: Plan) -> Stage:
    """The steps of a merge with its numbers."""

    def inputs(variant: str) -> dict[str, Any]:
        seed = plan.seeds[0]
        return {
            "report": plan.model("merge", variant, seed).with_name("report.json"),
            "chosen": plan.chosen(variant, seed),
        }

    return variant_figure(plan, "pipeline", "Pipeline of the merge", inputs)


def contact_sheet(plan: Plan) -> Stage:
    """Some fakes of each generator beside their reals."""

    def job(generator: str) -> Job:
        return Job(
            "r2m.report.stages:contact_sheet",
            {
                "fakes": plan.manifest(generator),
                "reals": [plan.manifest(name) for name in plan.domains],
            },
            {"out": RESULTS / "contact" / generator},
            {"label": plan.context.generator_label(generator)},
        )

    def labels(wildcards: Any) -> dict[str, str]:
        return {"generator": plan.context.generator_label(wildcards.generator)}

    return Stage(
        "contact_sheet",
        figure_files("results/contact/{generator}"),
        job,
        [{"generator": name} for name in plan.generators],
        is_benchmarked=False,
        report={"png": Captioned("contact_sheet", "Contact sheets", labels)},
    )


def cues(plan: Plan) -> Stage:
    """How well fakes can be told from reals without looking at a face."""

    def job() -> Job:
        return Job(
            "r2m.forge.stages:cues",
            {"manifests": [plan.manifest(name) for name in plan.sets]},
            {"out": CUES},
            {"seed": plan.params.seed},
        )

    return Stage("cues", {"out": str(CUES)}, job, is_benchmarked=False)


def onnx(plan: Plan) -> Stage:
    """How the merge that the model card is of compares with torch as an ONNX file."""

    def job() -> Job:
        return Job(
            "r2m.evaluate.stages:onnx",
            {
                "model": plan.model("merge", plan.reference, plan.seeds[0]),
                "manifests": [plan.manifest(name) for name in plan.training_sets(plan.trained)],
            },
            {"out": ONNX},
            {"seed": plan.params.seed},
        )

    return Stage("onnx", {"out": str(ONNX)}, job, memory=3000, is_benchmarked=False)


def card_context(plan: Plan) -> CardContext:
    """Return what the cards say of generators and domains."""
    described = plan.described(
        {"forge", "options", "images", "reals", "dataset", "method"},
        {"images", "identity", "dataset", "domain"},
    )
    indexes = {"datasets": {"__all__": {"index", "encode", "aligned"}}}
    return CardContext.model_validate({**described, **plan.params.model_dump(mode="json", include=indexes)})


def data_card(plan: Plan) -> Stage:
    """What the images are, where they come from and what they are not."""

    def job() -> Job:
        return Job(
            "r2m.report.stages:data_card",
            {
                "manifests": [plan.manifest(name) for name in plan.sets],
                "receipts": [receipt(package) for package in plan.packages],
                "cues": CUES,
            },
            {"out": DATA_CARD},
            {"context": card_context(plan)},
            modules=sorted({forgery.module for forgery in plan.forgeries_of(plan.generators)}),
        )

    return Stage("data_card", {"out": str(DATA_CARD)}, job, is_benchmarked=False)


def model_card(plan: Plan, benchmarks: Benchmarks) -> Stage:
    """What the merged detector is, how well it does and how to load it."""

    def job() -> Job:
        params, seed = plan.params, plan.seeds[0]
        model = plan.model("merge", plan.reference, seed)
        return Job(
            "r2m.report.stages:model_card",
            {
                "model": model,
                "report": model.with_name("report.json"),
                "chosen": plan.chosen(plan.reference, seed),
                "base": BASE,
                "specialists": plan.specialists("model", seed),
                "manifests": [plan.manifest(name) for name in plan.training_sets(plan.trained)],
                "receipts": [
                    *plan.receipts(params.domains[params.train_domain].images, params.backbone.weights),
                    *map(receipt, plan.packages_of(plan.trained)),
                ],
                "table": TABLES / "auc.csv",
                "models": TABLES / "models.csv",
                "intervals": TABLES / "intervals.csv",
                "operating": TABLES / "operating.csv",
                "calibration": TABLES / "calibration.csv",
                "onnx": ONNX,
            },
            {"out": MODEL_CARD},
            {
                "benchmarks": benchmarks,
                "faces": params.faces,
                "context": card_context(plan),
                "device": params.device,
                "precision": params.precision,
                "label": plan.label(plan.reference),
            },
        )

    return Stage("model_card", {"out": str(MODEL_CARD)}, job, is_benchmarked=False)


def settings(plan: Plan) -> Stage:
    """Commit, versions, digests of the models and the params that ran."""

    def job() -> Job:
        models = [
            plan.model(kind, name, seed)
            for kind, names in plan.models.items()
            for name in names
            for seed in plan.seeds
        ]
        return Job(
            "r2m.report.stages:settings",
            {"models": [BASE, PROBE, *models]},
            {"out": SETTINGS},
            {"params": params_that_ran(plan)},
        )

    return Stage("settings", {"out": str(SETTINGS)}, job, is_benchmarked=False)


def params_that_ran(plan: Plan) -> dict[str, Any]:
    """Return the params in their own order, without merges that are not enabled, which leave no trace."""
    enabled = {name: plan.params.merge.methods[name] for name in plan.variants}
    merge = plan.params.merge.model_copy(update={"methods": enabled})
    return plan.params.model_copy(update={"merge": merge}).model_dump(mode="json", exclude_none=True)


def runtimes(plan: Plan, benchmarks: Benchmarks) -> Stage:
    """Time and memory that the stages took."""

    def job() -> Job:
        # The benchmark files themselves are no inputs: jobs whose results came from DVC have none.
        return Job(
            "r2m.report.stages:runtimes",
            {},
            {"out": RUNTIMES},
            {"benchmarks": benchmarks},
            also=plan.all_scores,
        )

    return Stage("runtimes", {"out": str(RUNTIMES)}, job, is_benchmarked=False)


def pages(plan: Plan) -> Stage:
    """Tables and cards as pages of the report."""

    def job() -> Job:
        return Job("r2m.report.stages:pages", {"sources": list(PAGES)}, {"out": RESULTS / "pages"}, {})

    outputs = {path.stem: f"results/pages/{path.stem}.html" for path in PAGES}
    captions = {
        path.stem: Captioned(caption, category, {"result": name})
        for path, (caption, category, name) in PAGES.items()
    }
    return Stage("pages", outputs, job, is_benchmarked=False, report=captions)
