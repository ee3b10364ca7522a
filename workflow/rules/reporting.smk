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
        params:
            **call(stage),
        script:
            "../scripts/job.py"
