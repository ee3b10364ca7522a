rule rationale:
    input:
        unpack(bench_inputs),
        tune=chosen_options(PARAMS.experiments.rationale.variants),
    output:
        "results/experiments/rationale/seed{seed}/scores.parquet",
    log:
        "results/logs/experiments/rationale/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/rationale/seed{seed}.tsv"
    resources:
        mem_mb=4000,
    params:
        bench=bench_arguments,
        tune=lambda w, input: repeated("--tune", input.tune),
        domain=PARAMS.train_domain,
        generators=repeated("--generator", TRAIN_GENERATORS),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.rationale", *experiment_methods("rationale")]),
    # The threshold is there for the same reason as in the rule `tune`.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m rationale {params.bench} --backbone {params.backbone:q}"
        " {params.tune} --domain {params.domain} {params.generators} {params.compute}"
        " --threads {threads} --out {output} >{log} 2>&1"
