from snakemake.utils import min_version

min_version("9.10")


# Made of the Dockerfile, and used with `--sdm apptainer` alone: docs/dvc-and-clusters.md.
container: "r2m.sif"


include: "workflow/rules/common.smk"
include: "workflow/rules/around.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/merging.smk"
include: "workflow/rules/scoring.smk"
include: "workflow/rules/reporting.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/dvc.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        RUN.reported,
        RUN.code.artifacts(),
        S.members.artifacts(),
        S.slice.artifacts(),
        S.no_slices.artifacts(),


rule paper:
    input:
        rules.all.input,
        RUN.paper,


onstart:
    begin()
    CONTENTS.start()


onsuccess:
    CONTENTS.join()
    finish()


onerror:
    show_errors()
