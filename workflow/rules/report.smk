rule figure_heatmap:
    input:
        table="results/tables/auc.csv",
        models="results/tables/models.csv",
    output:
        *figure_outputs(
            "heatmap",
            "heatmap",
            "Results",
            figure="AUC of every model on every test set",
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
            figure="Merges against averaging and joint training",
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
            figure="Mean AUC with confidence intervals",
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
            figure="Reliability curves",
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
        lambda w: [f"results/residuals/{w.variant}/{name}.json" for name in MEMBERS],
    output:
        *figure_outputs(
            "spectra/{variant}",
            "spectra",
            "Method",
            figure="Singular values of task vectors and residuals",
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


rule figure_tune:
    input:
        expand("results/tune/{variant}/candidates.csv", variant=VARIANTS),
    output:
        *figure_outputs("tune", "tune", "Method", figure="Val AUC of every candidate"),
    log:
        "results/logs/figures/tune.log",
    params:
        out=without_suffix,
        code=code_digest(["r2m.cli.figure_tune"]),
    shell:
        "r2m figure-tune --out {params.out} {input} >{log} 2>&1"


rule data_card:
    input:
        manifests=[manifest_of(name) for name in SETS],
        receipts=package_receipts(*ALL_SOURCES),
    output:
        report(DATA_CARD, caption="../report/data_card.rst", category="Data"),
    log:
        "results/logs/data_card.log",
    params:
        receipts=lambda w, input: repeated("--receipt", input.receipts),
        context=context({"forge", "images", "reals"}, {"images", "identity"}),
        code=code_digest(["r2m.cli.data_card"]),
    shell:
        "r2m data-card {params.receipts} --options {params.context:q} --out {output}"
        " {input.manifests} >{log} 2>&1"


rule contact_sheet:
    input:
        fakes="results/forged/{generator}/manifest.parquet",
        reals=expand("results/faces/{domain}/manifest.parquet", domain=DOMAINS),
    output:
        report(
            "results/contact/{generator}.png",
            caption="../report/contact_sheet.rst",
            category="Contact sheets",
            labels={"generator": "{generator}"},
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
