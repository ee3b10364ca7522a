"""What DVC needs: digests of its stages, of slices and of training images, and its stages' targets."""


rule code:
    output:
        writes(RUN.code),
    log:
        RUN.code.log,
    localrule: True
    params:
        **call(RUN.code),
    script:
        "../scripts/job.py"


rule slice:
    input:
        reads(S.slice),
        settled(S.slice),
    output:
        writes(S.slice),
    log:
        S.slice.log,
    wildcard_constraints:
        set="|".join(OUTDATED) or "(?!)",
    localrule: True
    params:
        **call(S.slice),
    script:
        "../scripts/job.py"


if S.no_slices.instances:

    rule no_slices:
        output:
            writes(S.no_slices),
        log:
            S.no_slices.log,
        localrule: True
        params:
            **call(S.no_slices),
        script:
            "../scripts/job.py"


rule members:
    input:
        reads(S.members),
    output:
        writes(S.members),
    log:
        S.members.log,
    params:
        **call(S.members),
    script:
        "../scripts/job.py"


for name, stage in RUN.tracked.items():

    rule:
        name:
            f"stage_{name.replace('-', '_')}"
        input:
            stage.files,
        localrule: True
