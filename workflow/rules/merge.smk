rule statistics:
    input:
        unpack(lambda w: inputs_of(training_sets(MEMBERS[w.specialist]))),
        specialist="results/specialists/{specialist}/seed{seed}/model.safetensors",
    output:
        "results/statistics/{variant}/seed{seed}/{specialist}.safetensors",
    log:
        "results/logs/statistics/{variant}/seed{seed}/{specialist}.log",
    benchmark:
        "results/benchmarks/statistics/{variant}/seed{seed}/{specialist}.tsv"
    resources:
        mem_mb=3000,
    params:
        inputs=inputs_arguments,
        method=lambda w: VARIANTS[w.variant],
        generators=lambda w: repeated("--generator", MEMBERS[w.specialist]),
        images=statistics_images,
        backbone=BACKBONE,
        compute=COMPUTE,
        seed="{seed}",
        code=code_digest(["r2m.cli.statistics"]),
    shell:
        "r2m statistics --kind {params.method} --name {wildcards.specialist}"
        " --specialist {input.specialist} {params.inputs} --backbone {params.backbone:q}"
        " {params.generators} --images {params.images} --seed {params.seed} {params.compute}"
        " --threads {threads} --out {output} >{log} 2>&1"


rule tune:
    input:
        **inputs_of(training_sets(TRAIN_GENERATORS)),
        statistics=lambda w: list(statistics_of(w.variant, w.seed).values()),
        initial_head=INITIAL_HEAD,
        task_vectors=lambda w: files_of("task_vector", w.seed),
        heads=lambda w: files_of("head", w.seed),
    output:
        candidates="results/tune/{variant}/seed{seed}/candidates.csv",
        chosen="results/tune/{variant}/seed{seed}/chosen.json",
    log:
        "results/logs/tune/{variant}/seed{seed}.log",
    benchmark:
        "results/benchmarks/tune/{variant}/seed{seed}.tsv"
    resources:
        mem_mb=4000,
    params:
        inputs=inputs_arguments,
        task_vectors=lambda w: repeated(
            "--task-vector", specialist_files("task_vector", w.seed)
        ),
        statistics=lambda w: repeated("--statistics", statistics_of(w.variant, w.seed)),
        heads=lambda w: repeated("--head", specialist_files("head", w.seed)),
        generators=repeated("--generator", TRAIN_GENERATORS),
        options=lambda w: as_json(
            PARAMS.merge.methods[w.variant], exclude={"enabled", "label"}
        ),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=method_modules("tune"),
    # Without the threshold, glibc keeps what the many decompositions free: 7 GB where 3 are needed.
    shell:
        "MALLOC_MMAP_THRESHOLD_=8388608 r2m tune --variant {wildcards.variant} --options {params.options:q} {params.inputs}"
        " --backbone {params.backbone:q} {params.task_vectors} {params.statistics} {params.heads}"
        " --initial-head {input.initial_head} {params.generators} {params.compute}"
        " --threads {threads} --candidates {output.candidates} --out {output.chosen} >{log} 2>&1"


rule real_component:
    input:
        tune="results/tune/{variant}/seed{seed}/chosen.json",
        task_vectors=lambda w: files_of("task_vector", w.seed),
    output:
        core="results/real/{variant}/seed{seed}/core.safetensors",
        report="results/real/{variant}/seed{seed}/report.json",
    log:
        "results/logs/real_component/{variant}/seed{seed}.log",
    benchmark:
        "results/benchmarks/real_component/{variant}/seed{seed}.tsv"
    resources:
        mem_mb=3000,
    params:
        task_vectors=lambda w: repeated(
            "--task-vector", specialist_files("task_vector", w.seed)
        ),
        code=code_digest(["r2m.cli.real_component"]),
    shell:
        "r2m real-component --tune {input.tune} {params.task_vectors} --threads {threads}"
        " --out {output.core} --report {output.report} >{log} 2>&1"


rule residual:
    input:
        tune="results/tune/{variant}/seed{seed}/chosen.json",
        core="results/real/{variant}/seed{seed}/core.safetensors",
        task_vectors=lambda w: files_of("task_vector", w.seed),
    output:
        residual="results/residuals/{variant}/seed{seed}/{specialist}.safetensors",
        report="results/residuals/{variant}/seed{seed}/{specialist}.json",
    log:
        "results/logs/residual/{variant}/seed{seed}/{specialist}.log",
    benchmark:
        "results/benchmarks/residual/{variant}/seed{seed}/{specialist}.tsv"
    resources:
        mem_mb=3000,
    params:
        task_vectors=lambda w: repeated(
            "--task-vector", specialist_files("task_vector", w.seed)
        ),
        code=code_digest(["r2m.cli.residual"]),
    shell:
        "r2m residual --tune {input.tune} --real {input.core} {params.task_vectors}"
        " --specialist {wildcards.specialist} --threads {threads}"
        " --out {output.residual} --report {output.report} >{log} 2>&1"


rule merge:
    input:
        unpack(merge_parts),
        tune="results/tune/{variant}/seed{seed}/chosen.json",
        base="results/base/base.safetensors",
        initial_head=INITIAL_HEAD,
        heads=lambda w: files_of("head", w.seed),
    output:
        model="results/merged/{variant}/seed{seed}/model.safetensors",
        report="results/merged/{variant}/seed{seed}/report.json",
    log:
        "results/logs/merge/{variant}/seed{seed}.log",
    benchmark:
        "results/benchmarks/merge/{variant}/seed{seed}.tsv"
    resources:
        mem_mb=3000,
    params:
        parts=merge_parts_arguments,
        heads=lambda w: repeated("--head", specialist_files("head", w.seed)),
        code=method_modules("merge_variant"),
    shell:
        "r2m merge-variant --tune {input.tune} --base {input.base} {params.parts} {params.heads}"
        " --initial-head {input.initial_head} --threads {threads}"
        " --out {output.model} --report {output.report} >{log} 2>&1"
