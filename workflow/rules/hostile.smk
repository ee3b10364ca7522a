rule hostile_data:
    input:
        manifests=[manifest_of(name) for name in training_sets(MEMBERS[VICTIM])],
    output:
        manifest=f"{HOSTILE_DATA}/manifest.parquet",
        images=directory(f"{HOSTILE_DATA}/images"),
    log:
        "results/logs/experiments/hostile/data/{attack}.log",
    benchmark:
        "results/benchmarks/experiments/hostile/data/{attack}.tsv"
    params:
        manifests=lambda w, input: repeated("--manifest", input.manifests),
        generators=repeated("--generator", MEMBERS[VICTIM]),
        options=as_json(HOSTILE, exclude={"enabled", "variants", "victim", "scale"}),
        seed=PARAMS.seed,
        code=code_digest(["r2m.cli.hostile_data"]),
    shell:
        "r2m hostile-data --kind {wildcards.attack} {params.manifests} {params.generators}"
        " --options {params.options:q} --seed {params.seed} --out {output.manifest} >{log} 2>&1"


use rule trunk as hostile_trunk with:
    input:
        manifest=f"{HOSTILE_DATA}/manifest.parquet",
        base="results/base/base.safetensors",
    output:
        f"{HOSTILE_DATA}/activations.safetensors",
    log:
        "results/logs/experiments/hostile/trunk/{attack}.log",
    benchmark:
        "results/benchmarks/experiments/hostile/trunk/{attack}.tsv"


use rule finetune as hostile_finetune with:
    input:
        manifests=[f"{HOSTILE_DATA}/manifest.parquet"],
        trunks=[f"{HOSTILE_DATA}/activations.safetensors"] if HAS_TRUNK else [],
        base="results/base/base.safetensors",
        initial_head=INITIAL_HEAD,
    output:
        model="results/experiments/hostile/specialists/{attack}/seed{seed}/model.safetensors",
        history="results/experiments/hostile/specialists/{attack}/seed{seed}/history.csv",
    log:
        "results/logs/experiments/hostile/finetune/{attack}/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/hostile/finetune/{attack}/seed{seed}.tsv"
    params:
        # The victim's name gives it the honest one's order of images.
        name=VICTIM,
        inputs=inputs_arguments,
        generators=repeated("--generator", MEMBERS[VICTIM]),
        options=as_json(PARAMS.finetune_options(VICTIM)),
        augment=as_json(PARAMS.augment),
        backbone=BACKBONE,
        compute=COMPUTE,
        objective="binary",
        seed="{seed}",
        state="results/.state/hostile/{attack}/seed{seed}.safetensors",
        code=code_digest(["r2m.cli.finetune"]),


use rule task_vector as hostile_task_vector with:
    input:
        base="results/base/base.safetensors",
        specialist="results/experiments/hostile/specialists/{attack}/seed{seed}/model.safetensors",
    output:
        task_vector="results/experiments/hostile/specialists/{attack}/seed{seed}/task_vector.safetensors",
        head="results/experiments/hostile/specialists/{attack}/seed{seed}/head.safetensors",
    log:
        "results/logs/experiments/hostile/task_vector/{attack}/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/hostile/task_vector/{attack}/seed{seed}.tsv"


rule hostile:
    input:
        unpack(bench_inputs),
        tune=chosen_options(HOSTILE.variants),
        hostile_task_vectors=lambda w: list(
            hostile_files("task_vector", w.seed).values()
        ),
        hostile_heads=lambda w: list(hostile_files("head", w.seed).values()),
    output:
        scores="results/experiments/hostile/seed{seed}/scores.parquet",
        diagnostics="results/experiments/hostile/seed{seed}/diagnostics.parquet",
    log:
        "results/logs/experiments/hostile/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/hostile/seed{seed}.tsv"
    resources:
        mem_mb=5000,
    params:
        bench=bench_arguments,
        tune=lambda w, input: repeated("--tune", input.tune),
        hostile=lambda w: " ".join(
            repeated(
                f"--hostile-{kind.replace('_', '-')}", hostile_files(kind, w.seed)
            )
            for kind in ("task_vector", "head")
        ),
        victim=VICTIM,
        generators=repeated("--generator", TRAIN_GENERATORS),
        options=as_json(HOSTILE, include={"scale", "trigger"}),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.hostile", *experiment_methods("hostile")]),
    # The threshold is there for the same reason as in the rule `tune`.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m hostile {params.bench} --backbone {params.backbone:q}"
        " {params.tune} {params.hostile} --victim {params.victim} {params.generators}"
        " --options {params.options:q} --seed {wildcards.seed} {params.compute} --threads {threads}"
        " --out {output.scores} --diagnostics {output.diagnostics} >{log} 2>&1"
