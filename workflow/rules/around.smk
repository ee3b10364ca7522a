"""What happens before and after a run: folders, the report, and DVC's record."""

import subprocess

from r2m.cli import warm

STARTED = time.time()
# So many jobs are worth the import of all packages in a process that forks for them.
MANY = 8


def begin():
    """Before a run: make the folders that DVC expects, say what the params do not ask for any more, and warm up."""
    for folder in RUN.dvc_folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
    if orphans := RUN.orphans():
        logger.info(
            f"{len(orphans)} files below results are of names that params.yaml does not hold, such as"
            f" {orphans[0]}; `r2m prune` lists them"
        )
    is_here = workflow.local_exec and not workflow.deployment_settings.deployment_method
    can_start = warm.CAN_FORK and warm.ADDRESS not in os.environ
    if is_here and can_start and sum(1 for _ in workflow.dag.needrun_jobs()) >= MANY:
        warm.start()


def finish():
    """After a run outside DVC: write the report, tell DVC what is there, say where the tables are."""
    if "DVC_STAGE" in os.environ:
        return
    if (
        "Nothing to be done"
        not in run_snakemake("--dry-run", "--quiet", "rules", "--", "all").stdout
    ):
        return
    target = "paper" if all(Path(path).exists() for path in RUN.paper) else "all"
    style = Path(workflow.basedir, "workflow", "report", "report.css")
    made = run_snakemake(
        "--report", "results/report.html", "--report-stylesheet", style, "--", target
    )
    log = Path("results/logs/report.log")
    log.write_text(made.stdout, encoding="utf-8")
    if made.returncode:
        logger.warning(f"The report could not be made; {log} says why.")
    if Path(".dvc").is_dir():
        commit()
    logger.info(
        "Tables: results/tables. Figures: results/figures. Report: results/report.html."
    )


def run_snakemake(*arguments):
    """Run Snakemake on this workflow and return what it did."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        workflow.main_snakefile,
    ]
    return subprocess.run(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def commit():
    """Tell DVC that what is there is current, unless files of other params lie between it."""
    if untracked := RUN.untracked():
        logger.warning(
            f"DVC is not told of these results, since a clone could not restore them: {len(untracked)} files"
            f" such as {untracked[0]} are of names that params.yaml does not hold. `r2m prune --yes` removes them; then run again."
        )
        return
    command = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise WorkflowError(
            f"The results are there, but DVC has not taken them in: {result.stderr.strip()}"
        )


def show_errors():
    """After a failed run: show what the failed jobs said, which otherwise stands in their logs alone."""
    for path in sorted(Path("results", "logs").rglob("*.log")):
        if path.stat().st_mtime >= STARTED:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if lines and "error" in lines[-1].lower():
                logger.error(f"{path}: {lines[-1]}")
