rule finetune:
    input:
        unpack(lambda w: inputs_of(training_sets(MEMBERS[w.specialist]))),
        initial_head=INITIAL_HEAD,
    output:
        model="results/specialists/{specialist}/seed{seed}/model.safetensors",
        history="results/specialists/{specialist}/seed{seed}/history.csv",
    log:
        "results/logs/finetune/{specialist}/seed{seed}.log",
    benchmark:
        "results/benchmarks/finetune/{specialist}/seed{seed}.tsv"
    resources:
        mem_mb=2500,
    params:
        name="{specialist}",
        inputs=inputs_arguments,
        generators=lambda w: repeated("--generator", MEMBERS[w.specialist]),
        options=lambda w: as_json(PARAMS.finetune_options(w.specialist)),
        augment=as_json(PARAMS.augment),
        backbone=BACKBONE,
        compute=COMPUTE,
        objective="binary",
        seed="{seed}",
        state="results/.state/{specialist}/seed{seed}.safetensors",
        code=code_digest(["r2m.cli.finetune"]),
    shell:
        "r2m finetune --name {params.name} {params.inputs} {params.generators}"
        " --backbone {params.backbone:q} --options {params.options:q}"
        " --initial-head {input.initial_head} --augment {params.augment:q} --seed {params.seed} {params.compute}"
        " --objective {params.objective} --threads {threads} --state {params.state} --history {output.history}"
        " --out {output.model} >{log} 2>&1"


# The longest job: it begins first.
use rule finetune as joint with:
    input:
        **inputs_of(training_sets(TRAIN_GENERATORS)),
        initial_head=INITIAL_HEAD,
    output:
        model="results/joint/seed{seed}/model.safetensors",
        history="results/joint/seed{seed}/history.csv",
    log:
        "results/logs/joint/seed{seed}.log",
    benchmark:
        "results/benchmarks/joint/seed{seed}.tsv"
    priority: 10
    params:
        name="joint",
        inputs=inputs_arguments,
        generators=repeated("--generator", TRAIN_GENERATORS),
        options=as_json(PARAMS.joint_options()),
        augment=as_json(PARAMS.augment),
        backbone=BACKBONE,
        compute=COMPUTE,
        objective="binary",
        seed="{seed}",
        state="results/.state/joint/seed{seed}.safetensors",
        code=code_digest(["r2m.cli.finetune"]),


# One class a generator, for the comparison that the paper's reviewers asked for.
use rule joint as joint_multiclass with:
    output:
        model="results/joint_multiclass/seed{seed}/model.safetensors",
        history="results/joint_multiclass/seed{seed}/history.csv",
    log:
        "results/logs/joint_multiclass/seed{seed}.log",
    benchmark:
        "results/benchmarks/joint_multiclass/seed{seed}.tsv"
    params:
        name="joint_multiclass",
        inputs=inputs_arguments,
        generators=repeated("--generator", TRAIN_GENERATORS),
        options=as_json(PARAMS.joint_options()),
        augment=as_json(PARAMS.augment),
        backbone=BACKBONE,
        compute=COMPUTE,
        objective="multiclass",
        seed="{seed}",
        state="results/.state/joint_multiclass/seed{seed}.safetensors",
        code=code_digest(["r2m.cli.finetune"]),


rule probe:
    input:
        **inputs_of(training_sets(TRAIN_GENERATORS)),
    output:
        "results/probe/head.safetensors",
    log:
        "results/logs/probe.log",
    benchmark:
        "results/benchmarks/probe.tsv"
    resources:
        mem_mb=2500,
    params:
        inputs=inputs_arguments,
        generators=repeated("--generator", TRAIN_GENERATORS),
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.probe"]),
    shell:
        "r2m probe {params.inputs} {params.generators} --backbone {params.backbone:q}"
        " {params.compute} --threads {threads} --out {output} >{log} 2>&1"


rule task_vector:
    input:
        base="results/base/base.safetensors",
        specialist="results/specialists/{specialist}/seed{seed}/model.safetensors",
    output:
        task_vector="results/specialists/{specialist}/seed{seed}/task_vector.safetensors",
        head="results/specialists/{specialist}/seed{seed}/head.safetensors",
    log:
        "results/logs/task_vector/{specialist}/seed{seed}.log",
    benchmark:
        "results/benchmarks/task_vector/{specialist}/seed{seed}.tsv"
    resources:
        mem_mb=2000,
    params:
        code=code_digest(["r2m.cli.task_vector"]),
    shell:
        "r2m task-vector --base {input.base} --specialist {input.specialist}"
        " --out {output.task_vector} --head {output.head} >{log} 2>&1"
