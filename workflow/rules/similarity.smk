rule similarity:
    input:
        unpack(bench_inputs),
        tune=chosen_options(PARAMS.experiments.similarity.variants),
    output:
        "results/experiments/similarity/seed{seed}/scores.parquet",
    log:
        "results/logs/experiments/similarity/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/similarity/seed{seed}.tsv"
    resources:
        mem_mb=4000,
    params:
        bench=bench_arguments,
        tune=lambda w, input: repeated("--tune", input.tune),
        options=as_json(PARAMS.experiments.similarity),
        domain=PARAMS.train_domain,
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.similarity", *experiment_methods("similarity")]),
    # The threshold is there for the same reason as in the rule `tune`.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m similarity {params.bench} --backbone {params.backbone:q}"
        " {params.tune} --options {params.options:q} --domain {params.domain} {params.compute}"
        " --threads {threads} --out {output} >{log} 2>&1"
