"""What DVC needs of the workflow: stages and their code, folders, and what happens around a run."""


def stage_targets():
    """Stage of dvc.yaml → the files that it makes; a stage that the params leave out makes none."""
    stages = {
        "sources": [f"data/raw/{name}.json" for name in ALL_PACKAGES],
        "base": ["results/base/base.safetensors", INITIAL_HEAD],
        "members": [f"results/members/{name}.json" for name in TRAINED_ON],
        "joint": [
            PROBE,
            *(model_file("joint", name, seed) for name in JOINT for seed in SEEDS),
        ],
        "reference_scores": [
            BASE_SCORES,
            *(path for name in JOINT for path in scores_of("joint", name)),
        ],
        "report": REPORTED,
    }
    for name in SETS:
        stages[f"images_{name}"] = [manifest_of(name)]
        stages[f"trunk_{name}"] = [trunk_of(name)] if HAS_TRUNK else []
    for name in [*GENERATORS, *FAMILIES]:
        there = name in MEMBERS
        files = (
            [
                specialist_files(kind, seed)[name]
                for seed in SEEDS
                for kind in ("model", "task_vector", "head")
            ]
            if there
            else []
        )
        scores = scores_of("specialist", name) if there else []
        stages[f"specialist_{name}"] = files
        stages[f"specialist_scores_{name}"] = scores
    for name in PARAMS.merge.methods:
        there = name in VARIANTS
        models = [model_file("merge", name, seed) for seed in SEEDS]
        stages[f"merge_{name}"] = models if there else []
        scores = scores_of("merge", name) if there else []
        stages[f"merge_scores_{name}"] = scores
    return stages


# Model trained → the generators it is trained on; every name of DVC's stages is there.
TRAINED_ON = {
    **{name: MEMBERS.get(name, []) for name in [*GENERATORS, *FAMILIES]},
    "joint": TRAIN_GENERATORS,
}
STAGES = stage_targets()


def merge_commands(variant):
    """Commands that a variant's stage runs."""
    statistics = ["statistics"] if needs_statistics(variant) else []
    parts = ["real_component", "residual"] if variant in R2M_VARIANTS else []
    return [*statistics, "tune", *parts, "merge_variant"]


def code_of_stages():
    """Stage of dvc.yaml → digest of its commands' code and of the files that hold its rules."""

    def digest(phases, *commands):
        return "".join(map(rules_digest, phases.split())) + code_digest(commands)

    def command(name):
        return f"r2m.cli.{name}"

    figures = [
        command(f"figure_{name}")
        for name in (
            "heatmap",
            "dumbbell",
            "intervals",
            "reliability",
            "pipeline",
            "spectra",
            "tune",
        )
    ]
    return {
        "sources": digest("sources", command("sources")),
        "base": digest("sources", command("base")),
        "faces": digest("faces", command("faces")),
        "trunk": digest("trunk", command("trunk")),
        "members": digest("stages", command("members")),
        "finetune": digest("finetune", command("finetune"), command("probe")),
        "specialist": digest("finetune", command("finetune"), command("task_vector")),
        "score": digest("evaluate", command("score")),
        "report": digest(
            "evaluate report",
            *figures,
            *map(command, ("tables", "contact_sheet", "data_card", "model_card")),
            *map(command, ("settings", "runtimes", "pages")),
        ),
        **{
            f"forge-{name}": digest("forge", *forge_modules(name))
            for name in GENERATORS
        },
        **{
            f"merge-{name}": digest(
                "merge",
                *map(command, merge_commands(name)),
                f"r2m.merge.methods.{method}",
            )
            for name, method in VARIANTS.items()
        },
        # The empty stage of a variant that is not enabled need not run again when code changes.
        **{
            f"merge-{name}": "none"
            for name in PARAMS.merge.methods
            if name not in VARIANTS
        },
    }


def rules_digest(phase):
    """Digest of the rules of one file; comments and line breaks do not count."""
    import hashlib
    import io
    import tokenize

    text = Path(workflow.basedir, "workflow", "rules", f"{phase}.smk").read_text(
        encoding="utf-8"
    )
    skipped = (tokenize.COMMENT, tokenize.NL)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kept = "\n".join(token.string for token in tokens if token.type not in skipped)
    return hashlib.sha256(kept.encode()).hexdigest()[:16]


CODE = code_of_stages()
CODE_FILES = [f"results/code/{stage}" for stage in CODE]


JOINT_FOLDERS = ("joint", "joint_multiclass")
MERGE_FOLDERS = ("statistics", "tune", "real", "residuals", "merged", "scores/merge")

# Folders that stages of dvc.yaml put out although the params may leave nothing to be made there.
STAGE_FOLDERS = [
    "data/raw",
    *(f"results/{name}" for name in JOINT_FOLDERS),
    *(str(Path(trunk_of(name)).parent) for name in SETS),
    *(
        f"results/{folder}/{name}"
        for folder in MERGE_FOLDERS
        for name in PARAMS.merge.methods
    ),
    *(
        f"results/{folder}/{name}"
        for folder in ("specialists", "scores/specialist")
        for name in [*GENERATORS, *FAMILIES]
    ),
]


SEED_FOLDERS = [f"seed{seed}" for seed in SEEDS]


def seeded(folders):
    """Folder → names in it; with them the seeds that there are of each name."""
    seeds = {
        f"{folder}/{name}": SEED_FOLDERS
        for folder, names in folders.items()
        for name in names
    }
    return {**folders, **seeds}


def benchmarked():
    """Folder of benchmark files → the jobs that there are, so that no runtime of another is counted."""
    by_variant = {
        "statistics": [name for name in VARIANTS if needs_statistics(name)],
        "residual": R2M_VARIANTS,
    }
    return {
        "source": ALL_PACKAGES,
        "faces": DOMAINS,
        "forge": GENERATORS,
        "trunk/faces": DOMAINS if HAS_TRUNK else [],
        "trunk/forged": GENERATORS if HAS_TRUNK else [],
        **{name: SEED_FOLDERS for name in JOINT},
        **seeded(
            {
                "finetune": MEMBERS,
                "task_vector": MEMBERS,
                "tune": VARIANTS,
                "real_component": R2M_VARIANTS,
                "merge": VARIANTS,
                **by_variant,
                **{f"score/{kind}": models for kind, models in MODELS.items()},
            }
        ),
        **{
            f"{stage}/{variant}/{seed}": MEMBERS
            for stage, variants in by_variant.items()
            for variant in variants
            for seed in SEED_FOLDERS
        },
    }


def family_folders():
    """Folders of the experiment `families` → the names that it has."""
    if "families" not in EXPERIMENTS:
        return {}
    own = [name for name in FAMILY_MEMBERS if name not in REUSED]
    return {
        "experiments/families/forged": PROMOTED,
        "experiments/families/trunk/forged": PROMOTED,
        "experiments/families/specialists": own,
    }


def prune():
    """Remove results of names that are no longer in params.yaml, so that no table can show them.

    The folders that DVC expects are there afterwards, if only empty.
    """
    keep = {
        "code": CODE,
        "faces": DOMAINS,
        "forged": GENERATORS,
        "contact": GENERATORS,
        "trunk/faces": DOMAINS,
        "trunk/forged": GENERATORS,
        "members": TRAINED_ON,
        **{name: SEED_FOLDERS if name in JOINT else [] for name in JOINT_FOLDERS},
        **seeded(
            {
                "specialists": MEMBERS,
                "statistics": [name for name in VARIANTS if needs_statistics(name)],
                "tune": VARIANTS,
                "real": R2M_VARIANTS,
                "residuals": R2M_VARIANTS,
                "merged": VARIANTS,
                **{f"scores/{kind}": models for kind, models in MODELS.items()},
            }
        ),
        **{
            f"residuals/{variant}/{seed}": MEMBERS
            for variant in R2M_VARIANTS
            for seed in SEED_FOLDERS
        },
        "pages": [Path(path).stem for path in PAGES],
        **{f"figures/{name}": R2M_VARIANTS for name in ("pipeline", "spectra")},
        "experiments": EXPERIMENTS,
        **family_folders(),
        **{
            f"{folder}/joint": TRAINED_SUBSETS
            for folder in (
                "benchmarks/experiments/composability",
                *(f"experiments/composability/{seed}" for seed in SEED_FOLDERS),
            )
        },
        **{f"benchmarks/{folder}": names for folder, names in benchmarked().items()},
    }
    arguments = " ".join(
        f"--keep {folder}={','.join(names)}" for folder, names in keep.items()
    )
    shell(f"r2m prune --results results {arguments}")
    for folder in STAGE_FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)


def finish():
    """After a run outside DVC: write the report, tell DVC what is there, say where the tables are."""
    if "DVC_STAGE" in os.environ:
        return
    python = shlex.quote(sys.executable)
    snakemake = (
        f"{python} -m snakemake --snakefile {shlex.quote(str(workflow.main_snakefile))}"
    )
    done = shell(f"{snakemake} --dry-run --quiet rules -- all 2>&1 || true", read=True)
    if "Nothing to be done" not in done:
        return
    target = "paper" if all(Path(path).exists() for path in PAPER) else "all"
    style = Path(workflow.basedir, "workflow", "report", "report.css")
    shell(
        f"{snakemake} --report results/report.html --report-stylesheet {shlex.quote(str(style))}"
        f" -- {target}"
        " >results/logs/report.log 2>&1 || true"
    )
    if Path(".dvc").is_dir():
        command = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise WorkflowError(
                f"The results are there, but DVC has not taken them in: {result.stderr.strip()}"
            )
    logger.info(
        "Tables: results/tables. Figures: results/figures. Report: results/report.html."
    )


STARTED = time.time()


def show_errors():
    """After a failed run: show what the failed commands said, which otherwise stands in their logs alone."""
    for path in sorted(Path("results", "logs").rglob("*.log")):
        if path.stat().st_mtime >= STARTED:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if lines and "error" in lines[-1].lower():
                logger.error(f"{path}: {lines[-1]}")
