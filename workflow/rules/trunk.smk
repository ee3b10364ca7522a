rule trunk:
    input:
        manifest=lambda w: manifest_of(w.set),
        base="results/base/base.safetensors",
    output:
        "results/trunk/{stage}/{set}/activations.safetensors",
    log:
        "results/logs/trunk/{stage}/{set}.log",
    benchmark:
        "results/benchmarks/trunk/{stage}/{set}.tsv"
    resources:
        mem_mb=2000,
    params:
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.trunk"]),
    shell:
        "r2m trunk --manifest {input.manifest} --base {input.base}"
        " --backbone {params.backbone:q} {params.compute} --threads {threads}"
        " --out {output} >{log} 2>&1"
