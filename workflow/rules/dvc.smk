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


rule slice_digests:
    input:
        reads(S.slice_digests),
    output:
        writes(S.slice_digests),
    log:
        S.slice_digests.log,
    params:
        **call(S.slice_digests),
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
