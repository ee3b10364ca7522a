from snakemake.utils import min_version

min_version("9.10")


include: "workflow/rules/params.smk"


container: "docker://python:3.11-slim"


include: "workflow/rules/common.smk"
include: "workflow/rules/dvc.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/faces.smk"
include: "workflow/rules/forge.smk"
include: "workflow/rules/trunk.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/experiments_common.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/composability.smk"
include: "workflow/rules/similarity.smk"
include: "workflow/rules/rationale.smk"
include: "workflow/rules/hostile.smk"
include: "workflow/rules/robustness.smk"


if "families" in EXPERIMENTS:

    include: "workflow/rules/families.smk"


if "sources" in EXPERIMENTS:

    include: "workflow/rules/two_sources.smk"


include: "workflow/rules/report.smk"
include: "workflow/rules/stages.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        REPORTED,
        CODE_FILES,
        STAGES["members"],


rule paper:
    input:
        rules.all.input,
        PAPER,


onstart:
    prune()
    CONTENTS.start()


onsuccess:
    CONTENTS.join()
    finish()


onerror:
    show_errors()
