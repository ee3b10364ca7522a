"""Experiment `sources`: the main run's specialists again, with reals of a second domain in training."""


rule sources_faces:
    input:
        manifest=f"results/faces/{SECOND_SOURCE}/manifest.parquet",
        landmarks=f"results/faces/{SECOND_SOURCE}/landmarks.parquet",
    output:
        manifest=f"results/experiments/sources/faces/{SECOND_SOURCE}/manifest.parquet",
        landmarks=f"results/experiments/sources/faces/{SECOND_SOURCE}/landmarks.parquet",
    log:
        "results/logs/experiments/sources/faces.log",
    params:
        domain=lambda w, input: Path(input.manifest).parent,
        share=SOURCES_OPTIONS.share,
        seed=PARAMS.seed,
        out=lambda w, output: Path(output.manifest).parent,
        code=code_digest(["r2m.cli.second_source"]),
    shell:
        "r2m second-source --domain {params.domain} --share {params.share} --seed {params.seed}"
        " --out {params.out} >{log} 2>&1"


# Anew, since the donor of a face swap must not stand on the other side of the split.
use rule forge as sources_forge with:
    input:
        manifests=[f"{folder}/manifest.parquet" for folder in source_faces()],
        landmarks=[f"{folder}/landmarks.parquet" for folder in source_faces()],
    output:
        manifest="results/experiments/sources/forged/{generator}/manifest.parquet",
        skipped="results/experiments/sources/forged/{generator}/skipped.csv",
        images=directory("results/experiments/sources/forged/{generator}/images"),
    log:
        "results/logs/experiments/sources/forge/{generator}.log",
    benchmark:
        "results/benchmarks/experiments/sources/forge/{generator}.tsv"
    params:
        faces=repeated("--faces", source_faces()),


use rule trunk as sources_trunk with:
    input:
        manifest="results/experiments/sources/{stage}/{set}/manifest.parquet",
        base="results/base/base.safetensors",
    output:
        "results/experiments/sources/trunk/{stage}/{set}/activations.safetensors",
    log:
        "results/logs/experiments/sources/trunk/{stage}/{set}.log",
    benchmark:
        "results/benchmarks/experiments/sources/trunk/{stage}/{set}.tsv"


use rule finetune as sources_finetune with:
    input:
        unpack(lambda w: source_inputs([*TRAINED_DOMAINS, *MEMBERS[w.specialist]])),
        initial_head=INITIAL_HEAD,
    output:
        model="results/experiments/sources/specialists/{specialist}/seed{seed}/model.safetensors",
        history="results/experiments/sources/specialists/{specialist}/seed{seed}/history.csv",
    log:
        "results/logs/experiments/sources/finetune/{specialist}/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/sources/finetune/{specialist}/seed{seed}.tsv"
    params:
        state="results/.state/sources/{specialist}/seed{seed}.safetensors",


use rule task_vector as sources_task_vector with:
    input:
        base="results/base/base.safetensors",
        specialist="results/experiments/sources/specialists/{specialist}/seed{seed}/model.safetensors",
    output:
        task_vector="results/experiments/sources/specialists/{specialist}/seed{seed}/task_vector.safetensors",
        head="results/experiments/sources/specialists/{specialist}/seed{seed}/head.safetensors",
    log:
        "results/logs/experiments/sources/task_vector/{specialist}/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/sources/task_vector/{specialist}/seed{seed}.tsv"


rule two_sources:
    input:
        **source_inputs(SETS),
        initial_head=INITIAL_HEAD,
        task_vectors=lambda w: files_of("task_vector", w.seed),
        heads=lambda w: files_of("head", w.seed),
        second_task_vectors=lambda w: list(
            second_specialist_files("task_vector", w.seed).values()
        ),
        second_heads=lambda w: list(second_specialist_files("head", w.seed).values()),
    output:
        "results/experiments/sources/seed{seed}/scores.parquet",
    log:
        "results/logs/experiments/sources/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/sources/seed{seed}.tsv"
    resources:
        mem_mb=4000,
    params:
        bench=bench_arguments,
        second_task_vectors=lambda w: repeated(
            "--second-task-vector", second_specialist_files("task_vector", w.seed)
        ),
        second_heads=lambda w: repeated(
            "--second-head", second_specialist_files("head", w.seed)
        ),
        plan=sources_plan(),
        resamples=PARAMS.evaluate.resamples,
        seed=PARAMS.seed,
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.two_sources", *variant_modules(SOURCE_VARIANTS)]),
    # The threshold is there for the same reason as in the rule `tune`.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m two-sources {params.bench} --backbone {params.backbone:q}"
        " {params.second_task_vectors} {params.second_heads} --plan {params.plan:q}"
        " --resamples {params.resamples} --seed {params.seed} {params.compute} --threads {threads}"
        " --out {output} >{log} 2>&1"
