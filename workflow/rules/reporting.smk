"""Figures, contact sheets, cards and pages: one rule per stage of the report."""

for stage in RUN.reporting:

    rule:
        name:
            stage.name
        input:
            reads(stage),
        output:
            writes(stage),
        log:
            stage.log,
        threads: stage.threads
        resources:
            mem_mb=memory(stage),
        params:
            **call(stage),
        script:
            "../scripts/job.py"
