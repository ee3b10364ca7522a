rule faces:
    input:
        lambda w: package_receipts(PARAMS.domains[w.domain].images, DETECTOR),
    output:
        manifest="results/faces/{domain}/manifest.parquet",
        landmarks="results/faces/{domain}/landmarks.parquet",
        skipped="results/faces/{domain}/skipped.csv",
        crops=directory("results/faces/{domain}/crops"),
        images=directory("results/faces/{domain}/images"),
    log:
        "results/logs/faces/{domain}.log",
    benchmark:
        "results/benchmarks/faces/{domain}.tsv"
    threads: 2
    resources:
        mem_mb=1500,
    params:
        out=lambda w, output: Path(output.manifest).parent,
        images=lambda w: source_folder(PARAMS.domains[w.domain].images),
        files=lambda w: images_state(w.domain),
        domain=domain_arguments,
        options=as_json(PARAMS.faces, exclude={"detector"}),
        image_size=PARAMS.backbone.image_size,
        seed=PARAMS.seed,
        detector=detector_arguments(),
        code=code_digest(["r2m.cli.faces"]),
    shell:
        "r2m faces --domain {wildcards.domain} --images {params.images:q} {params.domain}"
        " --options {params.options:q} --image-size {params.image_size} --seed {params.seed}"
        " {params.detector} --threads {threads} --out {params.out} >{log} 2>&1"
