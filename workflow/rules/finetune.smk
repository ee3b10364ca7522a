rule finetune:
    input:
        unpack(lambda w: inputs_of(training_sets(MEMBERS[w.specialist]))),
        initial_head=INITIAL_HEAD,
    output:
        model="results/specialists/{specialist}/model.safetensors",
        history="results/specialists/{specialist}/history.csv",
    log:
        "results/logs/finetune/{specialist}.log",
    benchmark:
        "results/benchmarks/finetune/{specialist}.tsv"
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
        seed=PARAMS.seed,
        state="results/.state/{specialist}.safetensors",
        code=code_digest(["r2m.cli.finetune"]),
    shell:
        "r2m finetune --name {params.name} {params.inputs} {params.generators}"
        " --backbone {params.backbone:q} --options {params.options:q}"
        " --initial-head {input.initial_head} --augment {params.augment:q} --seed {params.seed} {params.compute}"
        " --threads {threads} --state {params.state} --history {output.history}"
        " --out {output.model} >{log} 2>&1"


# The longest job: it begins first.
use rule finetune as joint with:
    input:
        **inputs_of(training_sets(TRAIN_GENERATORS)),
        initial_head=INITIAL_HEAD,
    output:
        model="results/joint/model.safetensors",
        history="results/joint/history.csv",
    log:
        "results/logs/joint.log",
    benchmark:
        "results/benchmarks/joint.tsv"
    priority: 10
    params:
        name="joint",
        inputs=inputs_arguments,
        generators=repeated("--generator", TRAIN_GENERATORS),
        options=as_json(PARAMS.joint_options()),
        augment=as_json(PARAMS.augment),
        backbone=BACKBONE,
        compute=COMPUTE,
        seed=PARAMS.seed,
        state="results/.state/joint.safetensors",
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
        specialist="results/specialists/{specialist}/model.safetensors",
    output:
        task_vector="results/specialists/{specialist}/task_vector.safetensors",
        head="results/specialists/{specialist}/head.safetensors",
    log:
        "results/logs/task_vector/{specialist}.log",
    benchmark:
        "results/benchmarks/task_vector/{specialist}.tsv"
    resources:
        mem_mb=2000,
    params:
        code=code_digest(["r2m.cli.task_vector"]),
    shell:
        "r2m task-vector --base {input.base} --specialist {input.specialist}"
        " --out {output.task_vector} --head {output.head} >{log} 2>&1"
