"""Specialists, joint models, the linear probe, and task vectors."""


rule finetune:
    input:
        reads(S.finetune),
    output:
        writes(S.finetune),
    log:
        S.finetune.log,
    resources:
        mem_mb=memory(S.finetune),
        gpu=gpus(S.finetune),
    params:
        **call(S.finetune),
    script:
        "../scripts/job.py"


rule joint:
    input:
        reads(S.joint),
    output:
        writes(S.joint),
    log:
        S.joint.log,
    priority: S.joint.priority
    resources:
        mem_mb=memory(S.joint),
        gpu=gpus(S.joint),
    params:
        **call(S.joint),
    script:
        "../scripts/job.py"


rule probe:
    input:
        reads(S.probe),
    output:
        writes(S.probe),
    log:
        S.probe.log,
    resources:
        mem_mb=memory(S.probe),
        gpu=gpus(S.probe),
    params:
        **call(S.probe),
    script:
        "../scripts/job.py"


rule task_vector:
    input:
        reads(S.task_vector),
    output:
        writes(S.task_vector),
    log:
        S.task_vector.log,
    resources:
        mem_mb=memory(S.task_vector),
    params:
        **call(S.task_vector),
    script:
        "../scripts/job.py"
