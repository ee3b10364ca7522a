rule score:
    input:
        **inputs_of(SETS),
        model=lambda w: model_file(w.kind, w.model, w.seed),
    output:
        "results/scores/{kind}/{model}/seed{seed}/scores.parquet",
    log:
        "results/logs/score/{kind}/{model}/seed{seed}.log",
    benchmark:
        "results/benchmarks/score/{kind}/{model}/seed{seed}.tsv"
    resources:
        mem_mb=2500,
    params:
        inputs=inputs_arguments,
        kind="{kind}",
        model="{model}",
        described=model_arguments,
        backbone=BACKBONE,
        compute=COMPUTE,
        batch_size=PARAMS.evaluate.batch_size,
        code=code_digest(["r2m.cli.score"]),
    shell:
        "r2m score --checkpoint {input.model} --kind {params.kind} --model {params.model}"
        " {params.described} {params.inputs} --backbone {params.backbone:q} {params.compute}"
        " --batch-size {params.batch_size} --threads {threads} --out {output} >{log} 2>&1"


# Neither the base nor its linear probe depends on a seed.
use rule score as score_base with:
    input:
        **inputs_of(SETS),
        model=PROBE,
    output:
        BASE_SCORES,
    log:
        "results/logs/score/base/base.log",
    benchmark:
        "results/benchmarks/score/base/base.tsv"
    params:
        inputs=inputs_arguments,
        kind="base",
        model="base",
        described="--label 'Base (linear probe)'",
        backbone=BACKBONE,
        compute=COMPUTE,
        batch_size=PARAMS.evaluate.batch_size,
        code=code_digest(["r2m.cli.score"]),


rule tables:
    input:
        SCORES,
    output:
        TABLES,
    log:
        "results/logs/tables.log",
    params:
        out=lambda w, output: Path(output[0]).parent,
        scores=repeated("--scores", SCORES),
        context=context(),
        arguments=tables_arguments(),
        code=code_digest(["r2m.cli.tables"]),
    shell:
        "r2m tables {params.scores} --options {params.context:q} {params.arguments}"
        " --out {params.out} >{log} 2>&1"
