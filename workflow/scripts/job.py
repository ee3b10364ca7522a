"""Run one job of the plan: a function of r2m with the arguments that the rule's params hold."""

from r2m.cli.job import run_logged

if __name__ == "__main__":  # processes that a job starts import this file again
    params = snakemake.params  # noqa: F821
    run_logged(params.job, snakemake.threads, snakemake.log[0], params.benchmark)  # noqa: F821
