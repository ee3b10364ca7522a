rule trunk:
    input:
        manifest=lambda w: manifest_of(w.set),
        base="results/base/base.safetensors",
    output:
        "results/trunk/{stage}/{set}/activations.safetensors",
    params:
        backbone=BACKBONE,
        compute=COMPUTE,
        code=code_digest(["r2m.cli.trunk"]),
    resources:
        mem_mb=2000,
    log:
        "results/logs/trunk/{stage}/{set}.log",
    benchmark:
        "results/benchmarks/trunk/{stage}/{set}.tsv"
    shell:
        "{R2M} trunk --manifest {input.manifest} --base {input.base}"
        " --backbone {params.backbone:q} {params.compute} --threads {threads}"
        " --out {output} >{log} 2>&1"
