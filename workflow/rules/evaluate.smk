rule score:
    input:
        **inputs_of(SETS),
        model=lambda w: MODELS[w.kind][w.model],
    output:
        "results/scores/{kind}/{model}/scores.parquet",
    log:
        "results/logs/score/{kind}/{model}.log",
    benchmark:
        "results/benchmarks/score/{kind}/{model}.tsv"
    resources:
        mem_mb=2500,
    params:
        inputs=inputs_arguments,
        model=model_arguments,
        backbone=BACKBONE,
        compute=COMPUTE,
        batch_size=PARAMS.evaluate.batch_size,
        code=code_digest(["r2m.cli.score"]),
    shell:
        "r2m score --checkpoint {input.model} --kind {wildcards.kind} --model {wildcards.model}"
        " {params.model} {params.inputs} --backbone {params.backbone:q} {params.compute}"
        " --batch-size {params.batch_size} --threads {threads} --out {output} >{log} 2>&1"


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
