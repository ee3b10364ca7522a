rule source:
    output:
        files=directory("data/raw/{package}"),
        receipt="data/raw/{package}.json",
    params:
        pins=pins_of,
        code=code_digest(["r2m.cli.sources"]),
    log:
        "results/logs/source/{package}.log",
    benchmark:
        "results/benchmarks/source/{package}.tsv"
    shell:
        "{R2M} sources --package {wildcards.package} --requirements {PINS}"
        " --out {output.files} --receipt {output.receipt} >{log} 2>&1"


rule base:
    input:
        base_weights(),
    output:
        base="results/base/base.safetensors",
        head=INITIAL_HEAD,
    params:
        seed=PARAMS.seed,
        weights=weights_path(),
        backbone=BACKBONE,
        code=code_digest(["r2m.cli.base"]),
    resources:
        mem_mb=4000,
    log:
        "results/logs/base.log",
    benchmark:
        "results/benchmarks/base.tsv"
    shell:
        "{R2M} base --weights {params.weights:q} --backbone {params.backbone:q}"
        " --seed {params.seed} --head {output.head} --out {output.base} >{log} 2>&1"
