"""Sources, base weights, validation of data sets, faces, fakes, and the frozen trunk's activations."""


rule source:
    input:
        reads(S.source),
        requirements=ancient(PINS),
    output:
        writes(S.source),
    log:
        S.source.log,
    params:
        **call(S.source),
        pins=pins_of,
    script:
        "../scripts/job.py"


rule base:
    input:
        reads(S.base),
    output:
        writes(S.base),
    log:
        S.base.log,
    resources:
        mem_mb=memory(S.base),
    params:
        **call(S.base),
    script:
        "../scripts/job.py"


rule validate:
    input:
        settled(S.validate),
    output:
        writes(S.validate),
    log:
        S.validate.log,
    priority: S.validate.priority
    threads: S.validate.threads
    resources:
        mem_mb=memory(S.validate),
    params:
        **call(S.validate),
        rows=lambda w: index_state(w.dataset),
    script:
        "../scripts/job.py"


rule faces:
    input:
        reads(S.faces),
        settled(S.faces),
    output:
        writes(S.faces),
    log:
        S.faces.log,
    threads: S.faces.threads
    resources:
        mem_mb=memory(S.faces),
    params:
        **call(S.faces),
        files=lambda w: images_state(w.domain),
    script:
        "../scripts/job.py"


rule pool:
    input:
        reads(S.pool),
    output:
        writes(S.pool),
    log:
        S.pool.log,
    priority: S.pool.priority
    threads: S.pool.threads
    resources:
        mem_mb=memory(S.pool),
    params:
        **call(S.pool),
    script:
        "../scripts/job.py"


rule forge:
    input:
        reads(S.forge),
        settled(S.forge),
    output:
        writes(S.forge),
    log:
        S.forge.log,
    resources:
        mem_mb=memory(S.forge),
    params:
        **call(S.forge),
        files=lambda w: images_state(w.generator),
    script:
        "../scripts/job.py"


rule trunk:
    input:
        reads(S.trunk),
    output:
        writes(S.trunk),
    log:
        S.trunk.log,
    resources:
        mem_mb=memory(S.trunk),
        gpu=gpus(S.trunk),
    params:
        **call(S.trunk),
    script:
        "../scripts/job.py"
