rule forge:
    input:
        manifests=expand("results/faces/{domain}/manifest.parquet", domain=DOMAINS),
        landmarks=expand("results/faces/{domain}/landmarks.parquet", domain=DOMAINS),
        detector=package_receipts(DETECTOR),
        trained=lambda w: trained_folders(w.generator),
    output:
        manifest="results/forged/{generator}/manifest.parquet",
        skipped="results/forged/{generator}/skipped.csv",
        images=directory("results/forged/{generator}/images"),
    log:
        "results/logs/forge/{generator}.log",
    benchmark:
        "results/benchmarks/forge/{generator}.tsv"
    resources:
        mem_mb=1500,
    params:
        out=lambda w, output: Path(output.manifest).parent,
        faces=repeated("--faces", [f"results/faces/{name}" for name in DOMAINS]),
        trained=lambda w, input: repeated("--trained", input.get("trained", [])),
        options=lambda w: as_json(
            PARAMS.generators[w.generator], exclude={"finetune", "label"}
        ),
        files=lambda w: images_state(w.generator),
        faces_options=as_json(PARAMS.faces, exclude={"detector"}),
        image_size=PARAMS.backbone.image_size,
        seed=PARAMS.seed,
        detector=detector_arguments(),
        code=lambda w: code_digest(forge_modules(w.generator)),
    shell:
        "r2m forge --generator {wildcards.generator} --options {params.options:q}"
        " --faces-options {params.faces_options:q} --image-size {params.image_size}"
        " --seed {params.seed} {params.faces} {params.trained} {params.detector} --threads {threads}"
        " --out {params.out} >{log} 2>&1"
