"""Experiment `families`: specialists of more generators, and of whole families, beside those of the main run."""


use rule forge as families_forge with:
    output:
        manifest="results/experiments/families/forged/{generator}/manifest.parquet",
        skipped="results/experiments/families/forged/{generator}/skipped.csv",
        images=directory("results/experiments/families/forged/{generator}/images"),
    log:
        "results/logs/experiments/families/forge/{generator}.log",
    benchmark:
        "results/benchmarks/experiments/families/forge/{generator}.tsv"
    params:
        options=lambda w: as_json(
            PARAMS.generators[w.generator].model_copy(update={"role": "train"}),
            exclude={"finetune", "label"},
        ),


use rule trunk as families_trunk with:
    input:
        manifest="results/experiments/families/forged/{set}/manifest.parquet",
        base="results/base/base.safetensors",
    output:
        "results/experiments/families/trunk/forged/{set}/activations.safetensors",
    log:
        "results/logs/experiments/families/trunk/forged/{set}.log",
    benchmark:
        "results/benchmarks/experiments/families/trunk/forged/{set}.tsv"


use rule finetune as families_finetune with:
    input:
        unpack(lambda w: family_inputs(training_sets(FAMILY_MEMBERS[w.member]))),
        initial_head=INITIAL_HEAD,
    output:
        model="results/experiments/families/specialists/{member}/seed{seed}/model.safetensors",
        history="results/experiments/families/specialists/{member}/seed{seed}/history.csv",
    log:
        "results/logs/experiments/families/finetune/{member}/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/families/finetune/{member}/seed{seed}.tsv"
    params:
        name="{member}",
        generators=lambda w: repeated("--generator", FAMILY_MEMBERS[w.member]),
        options=lambda w: as_json(family_finetune_options(w.member)),
        state="results/.state/families/{member}/seed{seed}.safetensors",


use rule families_finetune as families_joint with:
    input:
        **family_inputs(training_sets(FAMILY_GENERATORS)),
        initial_head=INITIAL_HEAD,
    output:
        model="results/experiments/families/joint/seed{seed}/model.safetensors",
        history="results/experiments/families/joint/seed{seed}/history.csv",
    log:
        "results/logs/experiments/families/joint/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/families/joint/seed{seed}.tsv"
    priority: 10
    params:
        name="joint",
        generators=repeated("--generator", FAMILY_GENERATORS),
        options=as_json(PARAMS.joint_options()),
        state="results/.state/families/joint/seed{seed}.safetensors",


use rule task_vector as families_task_vector with:
    input:
        base="results/base/base.safetensors",
        specialist="results/experiments/families/specialists/{member}/seed{seed}/model.safetensors",
    output:
        task_vector="results/experiments/families/specialists/{member}/seed{seed}/task_vector.safetensors",
        head="results/experiments/families/specialists/{member}/seed{seed}/head.safetensors",
    log:
        "results/logs/experiments/families/task_vector/{member}/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/families/task_vector/{member}/seed{seed}.tsv"


rule families:
    input:
        **family_inputs(SETS),
        initial_head=INITIAL_HEAD,
        task_vectors=lambda w: list(family_files("task_vector", w.seed).values()),
        heads=lambda w: list(family_files("head", w.seed).values()),
        joint=lambda w: family_joint(w.seed),
    output:
        "results/experiments/families/seed{seed}/scores.parquet",
    log:
        "results/logs/experiments/families/seed{seed}.log",
    benchmark:
        "results/benchmarks/experiments/families/seed{seed}.tsv"
    resources:
        mem_mb=5000,
    params:
        inputs=inputs_arguments,
        task_vectors=lambda w: repeated(
            "--task-vector", family_files("task_vector", w.seed)
        ),
        heads=lambda w: repeated("--head", family_files("head", w.seed)),
        joint=lambda w, input: repeated("--joint", input.joint),
        plan=families_plan(),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(
            ["r2m.cli.families", *variant_modules(FAMILIES_OPTIONS.variants)]
        ),
    # The threshold is there for the same reason as in the rule `tune`.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m families {params.inputs} --backbone {params.backbone:q}"
        " {params.task_vectors} {params.heads} --initial-head {input.initial_head} {params.joint}"
        " --plan {params.plan:q} {params.compute} --threads {threads} --out {output} >{log} 2>&1"
