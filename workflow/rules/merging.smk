"""Statistics, tuning on val, R²M's Real component and residuals, and the merged models."""


rule statistics:
    input:
        reads(S.statistics),
    output:
        writes(S.statistics),
    log:
        S.statistics.log,
    resources:
        mem_mb=memory(S.statistics),
        gpu=gpus(S.statistics),
    params:
        **call(S.statistics),
    script:
        "../scripts/job.py"


rule tune:
    input:
        reads(S.tune),
    output:
        writes(S.tune),
    log:
        S.tune.log,
    resources:
        mem_mb=memory(S.tune),
        gpu=gpus(S.tune),
    params:
        **call(S.tune),
    script:
        "../scripts/job.py"


rule real_component:
    input:
        reads(S.real_component),
    output:
        writes(S.real_component),
    log:
        S.real_component.log,
    resources:
        mem_mb=memory(S.real_component),
    params:
        **call(S.real_component),
    script:
        "../scripts/job.py"


rule residual:
    input:
        reads(S.residual),
    output:
        writes(S.residual),
    log:
        S.residual.log,
    resources:
        mem_mb=memory(S.residual),
    params:
        **call(S.residual),
    script:
        "../scripts/job.py"


rule merge:
    input:
        reads(S.merge),
    output:
        writes(S.merge),
    log:
        S.merge.log,
    resources:
        mem_mb=memory(S.merge),
    params:
        **call(S.merge),
    script:
        "../scripts/job.py"
