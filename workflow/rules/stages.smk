# Targets of dvc.yaml's stages, which call `snakemake --allowed-rules … -- stage_NAME`.


# A shell: of a job with `run` Snakemake records no start, and the report then has no runtimes.
rule code:
    output:
        CODE_FILES,
    log:
        "results/logs/code.log",
    localrule: True
    params:
        digests=" ".join(f"{stage}={digest}" for stage, digest in CODE.items()),
    shell:
        "for one in {params.digests}; do"
        " echo ${{one#*=}} >results/code/${{one%%=*}}; done 2>{log}"


rule members:
    input:
        members_of(SETS),
    output:
        STAGES["members"],
    log:
        "results/logs/members.log",
    params:
        models=repeated(
            "--model",
            {
                name: ",".join(members_of(training_sets(generators)))
                for name, generators in TRAINED_ON.items()
            },
        ),
        out=lambda w, output: Path(output[0]).parent,
        code=code_digest(["r2m.cli.members"]),
    shell:
        "r2m members {params.models} --out {params.out} >{log} 2>&1"


for stage, files in STAGES.items():

    rule:
        name:
            f"stage_{stage}"
        input:
            files,
        localrule: True
