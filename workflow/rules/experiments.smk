"""The experiments of the paper: what each module of r2m.experiments declares, one rule per stage."""

for stage in RUN.experiments.values():

    rule:
        name:
            stage.name
        input:
            reads(stage),
            settled(stage),
        output:
            writes(stage),
        log:
            stage.log,
        priority: stage.priority
        threads: stage.threads
        resources:
            mem_mb=memory(stage),
            gpu=gpus(stage),
        params:
            **call(stage),
            caption=stage.caption,
        script:
            "../scripts/job.py"
