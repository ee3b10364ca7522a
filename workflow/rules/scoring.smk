"""Every model's scores, and the tables of all of them."""


rule score:
    input:
        reads(S.score),
    output:
        writes(S.score),
    log:
        S.score.log,
    resources:
        mem_mb=memory(S.score),
        gpu=gpus(S.score),
    params:
        **call(S.score),
    script:
        "../scripts/job.py"


rule score_base:
    input:
        reads(S.score_base),
    output:
        writes(S.score_base),
    log:
        S.score_base.log,
    resources:
        mem_mb=memory(S.score_base),
        gpu=gpus(S.score_base),
    params:
        **call(S.score_base),
    script:
        "../scripts/job.py"


rule tables:
    input:
        reads(S.tables),
    output:
        writes(S.tables),
    log:
        S.tables.log,
    params:
        **call(S.tables),
    script:
        "../scripts/job.py"
