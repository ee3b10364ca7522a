rule heads:
    input:
        unpack(bench_inputs),
        tune=chosen_options(PARAMS.experiments.heads.variants),
    output:
        "results/experiments/heads/seed{seed}/scores.parquet",
    log:
        "results/logs/experiments/heads/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/heads/seed{seed}.tsv"
    resources:
        mem_mb=3000,
    params:
        bench=bench_arguments,
        tune=lambda w, input: repeated("--tune", input.tune),
        generators=repeated("--generator", TRAIN_GENERATORS),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.heads", *experiment_methods("heads")]),
    shell:
        "r2m heads {params.bench} --backbone {params.backbone:q} {params.tune} {params.generators}"
        " {params.compute} --threads {threads} --out {output} >{log} 2>&1"


rule ablation:
    input:
        unpack(bench_inputs),
        tune=chosen_options(PARAMS.experiments.ablation.variants),
    output:
        "results/experiments/ablation/seed{seed}/scores.parquet",
    log:
        "results/logs/experiments/ablation/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/ablation/seed{seed}.tsv"
    resources:
        mem_mb=4000,
    params:
        bench=bench_arguments,
        tune=lambda w, input: repeated("--tune", input.tune),
        options=as_json(PARAMS.experiments.ablation),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.ablation", *experiment_methods("ablation")]),
    # The threshold is there for the same reason as in the rule `tune`.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m ablation {params.bench} --backbone {params.backbone:q}"
        " {params.tune} --options {params.options:q} {params.compute} --threads {threads}"
        " --out {output} >{log} 2>&1"


for experiment in EXPERIMENTS:

    rule:
        name:
            f"table_{experiment}"
        input:
            experiment_input(experiment),
        output:
            *experiment_tables(experiment),
        log:
            f"results/logs/experiments/table_{experiment}.log",
        params:
            experiment=experiment,
            out=without_suffix,
            folder=lambda w, output: Path(output[0]).parent,
            context=EXPERIMENT_CONTEXT,
            code=code_digest(
                [
                    "r2m.cli.experiment_table",
                    f"r2m.tables.{experiment}",
                    "r2m.cli.pages",
                ]
            ),
        shell:
            "(r2m experiment-table --experiment {params.experiment} --options {params.context:q}"
            " --out {params.out} {input} && r2m pages --out {params.folder} {params.out}.md) >{log} 2>&1"

    rule:
        name:
            f"figure_{experiment}"
        input:
            f"results/experiments/{experiment}/table.csv",
        output:
            *experiment_figures(experiment),
        log:
            f"results/logs/experiments/figure_{experiment}.log",
        params:
            experiment=experiment,
            out=without_suffix,
            context=EXPERIMENT_CONTEXT,
            code=code_digest(["r2m.cli.experiment_figure", f"r2m.figures.{experiment}"]),
        shell:
            "r2m experiment-figure --experiment {params.experiment} --options {params.context:q}"
            " --out {params.out} {input} >{log} 2>&1"
