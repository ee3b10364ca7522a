"""A fine-tuning that is killed goes on where it was, to the same bytes."""

import pytest
from workflow_project import Project, kill, snakemake, wait_for

pytestmark = pytest.mark.slow

MODEL = "results/specialists/swap/seed0/model.safetensors"
HISTORY = "results/specialists/swap/seed0/history.csv"
STATE = "results/.state/swap/seed0.safetensors"


def test_killed_finetuning_resumes_to_the_same_bytes(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = project.alone()
    for key, value in (("steps", 400), ("validate_every", 50), ("checkpoint_every", 25)):
        project.edit(f"finetune.{key}", value)
    uninterrupted = project.copy(tmp_path_factory.mktemp("uninterrupted") / "project")
    uninterrupted.snakemake("--", MODEL)

    process = project.start(*snakemake("--", MODEL))
    try:
        wait_for((project / STATE).exists, process)
    finally:
        kill(process)
    assert not (project / MODEL).exists()
    assert "--unlock" in project.snakemake("--", MODEL, code=1)
    project.snakemake("--unlock")
    project.snakemake("--rerun-incomplete", "--", MODEL)

    log = (project / "results/logs/finetune/swap/seed0.log").read_text()
    assert "swap: resumed after step" in log
    for path in (MODEL, HISTORY):
        assert (project / path).read_bytes() == (uninterrupted / path).read_bytes(), path
    assert not (project / STATE).exists()
    assert "resumed" not in (uninterrupted / "results/logs/finetune/swap/seed0.log").read_text()
    leftovers = [path.name for path in (project / MODEL).parent.iterdir()]
    assert not [name for name in leftovers if ".tmp" in name]
