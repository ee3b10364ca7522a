rule figure_heatmap:
    input:
        table="results/tables/auc.csv",
        models="results/tables/models.csv",
    output:
        *figure_outputs(
            "heatmap",
            "heatmap",
            "Results",
            result="AUC of every model on every test set",
        ),
    log:
        "results/logs/figures/heatmap.log",
    params:
        out=without_suffix,
        context=context(),
        code=code_digest(["r2m.cli.figure_heatmap"]),
    shell:
        "r2m figure-heatmap --table {input.table} --models {input.models}"
        " --options {params.context:q} --out {params.out} >{log} 2>&1"


rule figure_dumbbell:
    input:
        "results/tables/dumbbell.csv",
    output:
        *figure_outputs(
            "dumbbell",
            "dumbbell",
            "Results",
            result="Merges against averaging and joint training",
        ),
    log:
        "results/logs/figures/dumbbell.log",
    params:
        out=without_suffix,
        code=code_digest(["r2m.cli.figure_dumbbell"]),
    shell:
        "r2m figure-dumbbell --means {input} --out {params.out} >{log} 2>&1"


rule figure_intervals:
    input:
        "results/tables/intervals.csv",
    output:
        *figure_outputs(
            "intervals",
            "intervals",
            "Results",
            result="Mean AUC with confidence intervals (figure)",
        ),
    log:
        "results/logs/figures/intervals.log",
    params:
        out=without_suffix,
        context=context(),
        code=code_digest(["r2m.cli.figure_intervals"]),
    shell:
        "r2m figure-intervals --means {input} --options {params.context:q} --out {params.out}"
        " >{log} 2>&1"


rule figure_reliability:
    input:
        table="results/tables/reliability.csv",
        models="results/tables/models.csv",
    output:
        *figure_outputs(
            "reliability",
            "reliability",
            "Results",
            result="Reliability curves",
        ),
    log:
        "results/logs/figures/reliability.log",
    params:
        out=without_suffix,
        context=context(),
        code=code_digest(["r2m.cli.figure_reliability"]),
    shell:
        "r2m figure-reliability --table {input.table} --models {input.models}"
        " --options {params.context:q} --out {params.out} >{log} 2>&1"


rule figure_spectra:
    input:
        lambda w: [
            f"results/residuals/{w.variant}/seed{FIRST_SEED}/{name}.json"
            for name in MEMBERS
        ],
    output:
        *figure_outputs(
            "spectra/{variant}",
            "spectra",
            "Method",
            result="Singular values of task vectors and residuals",
            variant="{variant}",
        ),
    log:
        "results/logs/figures/spectra/{variant}.log",
    params:
        out=without_suffix,
        title=lambda w: PARAMS.merge.methods[w.variant].label or w.variant,
        context=context(),
        code=code_digest(["r2m.cli.figure_spectra"]),
    shell:
        "r2m figure-spectra --options {params.context:q} --title {params.title:q}"
        " --out {params.out} {input} >{log} 2>&1"


rule figure_pipeline:
    input:
        report=f"results/merged/{{variant}}/seed{FIRST_SEED}/report.json",
        tune=f"results/tune/{{variant}}/seed{FIRST_SEED}/chosen.json",
    output:
        *figure_outputs(
            "pipeline/{variant}",
            "pipeline",
            "Method",
            result="Pipeline of the merge",
            variant="{variant}",
        ),
    log:
        "results/logs/figures/pipeline/{variant}.log",
    params:
        out=without_suffix,
        title=lambda w: PARAMS.merge.methods[w.variant].label or w.variant,
        context=context(),
        code=code_digest(["r2m.cli.figure_pipeline"]),
    shell:
        "r2m figure-pipeline --report {input.report} --tune {input.tune}"
        " --options {params.context:q} --title {params.title:q} --out {params.out} >{log} 2>&1"


rule figure_tune:
    input:
        [f"results/tune/{name}/seed{FIRST_SEED}/candidates.csv" for name in VARIANTS],
    output:
        *figure_outputs("tune", "tune", "Method", result="Val AUC of every candidate"),
    log:
        "results/logs/figures/tune.log",
    params:
        out=without_suffix,
        candidates=lambda w, input: repeated("--candidates", dict(zip(VARIANTS, input))),
        context=json.dumps({"variants": VARIANT_LABELS}),
        code=code_digest(["r2m.cli.figure_tune"]),
    shell:
        "r2m figure-tune --options {params.context:q} --out {params.out} {params.candidates} >{log} 2>&1"


rule data_card:
    input:
        manifests=[manifest_of(name) for name in SETS],
        receipts=package_receipts(*ALL_SOURCES),
    output:
        DATA_CARD,
    log:
        "results/logs/data_card.log",
    params:
        receipts=lambda w, input: repeated("--receipt", input.receipts),
        context=context({"forge", "images", "reals"}, {"images", "identity"}),
        code=code_digest(["r2m.cli.data_card"]),
    shell:
        "r2m data-card {params.receipts} --options {params.context:q} --out {output}"
        " {input.manifests} >{log} 2>&1"


rule model_card:
    input:
        model=model_file("merge", REFERENCE, FIRST_SEED),
        report=f"results/merged/{REFERENCE}/seed{FIRST_SEED}/report.json",
        tune=f"results/tune/{REFERENCE}/seed{FIRST_SEED}/chosen.json",
        base="results/base/base.safetensors",
        specialists=files_of("model", FIRST_SEED),
        manifests=[manifest_of(name) for name in training_sets(TRAIN_GENERATORS)],
        receipts=package_receipts(
            PARAMS.domains[PARAMS.train_domain].images, PARAMS.backbone.weights
        ),
        table="results/tables/auc.csv",
        models="results/tables/models.csv",
        intervals="results/tables/intervals.csv",
    output:
        MODEL_CARD,
    log:
        "results/logs/model_card.log",
    params:
        specialists=repeated("--specialist", specialist_files("model", FIRST_SEED)),
        manifests=lambda w, input: repeated("--manifest", input.manifests),
        receipts=lambda w, input: repeated("--receipt", input.receipts),
        benchmarks="results/benchmarks",
        faces=as_json(PARAMS.faces),
        context=context({"forge", "images", "reals"}, {"images", "identity"}),
        compute=COMPUTE,
        label=PARAMS.merge.methods[REFERENCE].label or REFERENCE,
        code=code_digest(["r2m.cli.model_card"]),
    shell:
        "r2m model-card --model {input.model} --report {input.report} --tune {input.tune}"
        " --base {input.base} {params.specialists} {params.manifests} {params.receipts}"
        " --table {input.table} --models {input.models} --intervals {input.intervals}"
        " --benchmarks {params.benchmarks}"
        " --faces {params.faces:q} --options {params.context:q} {params.compute}"
        " --label {params.label:q} --out {output} >{log} 2>&1"


rule settings:
    input:
        base="results/base/base.safetensors",
        probe=PROBE,
        models=[
            model_file(kind, model, seed)
            for kind, models in MODELS.items()
            for model in models
            for seed in SEEDS
        ],
    output:
        SETTINGS,
    log:
        "results/logs/settings.log",
    params:
        settings=params_that_ran(),
        code=code_digest(["r2m.cli.settings"]),
    shell:
        "r2m settings --params {params.settings:q} --out {output} {input.base} {input.probe} {input.models}"
        " >{log} 2>&1"


# The benchmark files themselves are no inputs: jobs whose results came from DVC have none.
rule runtimes:
    input:
        SCORES,
    output:
        RUNTIMES,
    log:
        "results/logs/runtimes.log",
    params:
        benchmarks="results/benchmarks",
        code=code_digest(["r2m.cli.runtimes"]),
    shell:
        "r2m runtimes {params.benchmarks} --out {output} >{log} 2>&1"


rule pages:
    input:
        list(PAGES),
    output:
        *page_outputs(),
    log:
        "results/logs/pages.log",
    params:
        out=lambda w, output: Path(output[0]).parent,
        code=code_digest(["r2m.cli.pages"]),
    shell:
        "r2m pages --out {params.out} {input} >{log} 2>&1"


rule contact_sheet:
    input:
        fakes="results/forged/{generator}/manifest.parquet",
        reals=expand("results/faces/{domain}/manifest.parquet", domain=DOMAINS),
    output:
        report(
            "results/contact/{generator}.png",
            caption="../report/contact_sheet.rst",
            category="Contact sheets",
            labels=lambda w: {
                "generator": PARAMS.generators[w.generator].label or w.generator
            },
        ),
        "results/contact/{generator}.pdf",
        "results/contact/{generator}.svg",
    log:
        "results/logs/contact_sheet/{generator}.log",
    params:
        out=lambda w, output: Path(output[0]).with_suffix(""),
        reals=lambda w, input: repeated("--reals", input.reals),
        code=code_digest(["r2m.cli.contact_sheet"]),
    shell:
        "r2m contact-sheet --manifest {input.fakes} {params.reals} --out {params.out}"
        " >{log} 2>&1"
