rule robustness:
    input:
        manifests=[manifest_of(name) for name in ROBUSTNESS_SETS],
        base="results/base/base.safetensors",
        models=lambda w: list(robustness_models(w.seed).values()),
    output:
        "results/experiments/robustness/seed{seed}/scores.parquet",
    log:
        "results/logs/experiments/robustness/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/robustness/seed{seed}.tsv"
    resources:
        mem_mb=3000,
    params:
        manifests=lambda w, input: repeated("--manifest", input.manifests),
        models=lambda w: repeated("--model", robustness_models(w.seed)),
        domain=PARAMS.train_domain,
        generators=repeated("--generator", GENERATORS),
        options=as_json(ROBUSTNESS, exclude={"enabled", "variants"}),
        backbone=BACKBONE,
        compute=COMPUTE,
        batch_size=PARAMS.evaluate.batch_size,
        seed=PARAMS.seed,
        code=code_digest(["r2m.cli.robustness"]),
    shell:
        "r2m robustness {params.manifests} --base {input.base} --backbone {params.backbone:q}"
        " {params.models} --domain {params.domain} {params.generators} --options {params.options:q}"
        " --batch-size {params.batch_size} --seed {params.seed} {params.compute} --threads {threads}"
        " --out {output} >{log} 2>&1"
