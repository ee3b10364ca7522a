use rule finetune as joint_subset with:
    input:
        unpack(lambda w: inputs_of(training_sets(subset_generators(w.subset)))),
        initial_head=INITIAL_HEAD,
    output:
        model="results/experiments/composability/seed{seed}/joint/{subset}/model.safetensors",
        history="results/experiments/composability/seed{seed}/joint/{subset}/history.csv",
    log:
        "results/logs/experiments/composability/joint/{subset}/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/composability/joint/{subset}/seed{seed}.tsv"
    params:
        name="joint-{subset}",
        inputs=inputs_arguments,
        generators=lambda w: repeated("--generator", subset_generators(w.subset)),
        options=lambda w: as_json(PARAMS.joint_options(len(SUBSETS[w.subset]))),
        augment=as_json(PARAMS.augment),
        backbone=BACKBONE,
        compute=COMPUTE,
        objective="binary",
        seed="{seed}",
        state="results/.state/joint-{subset}/seed{seed}.safetensors",
        code=code_digest(["r2m.cli.finetune"]),


rule composability:
    input:
        unpack(bench_inputs),
        models=lambda w: list(subset_models(w.seed).values()),
    output:
        scores="results/experiments/composability/seed{seed}/scores.parquet",
        steps="results/experiments/composability/seed{seed}/steps.csv",
    log:
        "results/logs/experiments/composability/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/composability/seed{seed}.tsv"
    resources:
        mem_mb=4000,
    params:
        bench=bench_arguments,
        models=lambda w: repeated("--model", subset_models(w.seed)),
        benchmarks=lambda w: repeated("--benchmark", subset_benchmarks(w.seed)),
        orders=repeated("--order", [",".join(order) for order in ORDERS]),
        options=as_json(
            PARAMS.merge.model_copy(
                update={
                    "methods": {
                        name: PARAMS.merge.methods[name]
                        for name in PARAMS.experiments.composability.variants
                        if name in VARIANTS
                    }
                }
            ),
            exclude={"methods": {"__all__": {"enabled", "label"}}},
        ),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(
            ["r2m.cli.composability", *experiment_methods("composability")]
        ),
    # One thread, as the rule `tune` takes: with all specialists, the same candidates are chosen as there.
    # The threshold is there for the same reason as there.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m composability {params.bench} --backbone {params.backbone:q}"
        " {params.models} {params.benchmarks} {params.orders} --options {params.options:q} {params.compute}"
        " --threads {threads} --out {output.scores} --steps {output.steps} >{log} 2>&1"
