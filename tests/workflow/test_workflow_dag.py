"""What a change reruns: exact jobs, by dry runs after one finished run."""

import re
import shutil
import sys
from collections import Counter

import pandas as pd
import pytest
from workflow_project import Project

pytestmark = pytest.mark.slow

VARIANTS = ("weight_averaging", "ties", "r2m_task", "r2m")
REFERENCE = "r2m"  # what the model card is of
RECORDING = ["model_card", "settings", "runtimes", "pages"]
REPORTING = [
    "tables",
    *("figure_heatmap", "figure_dumbbell", "figure_intervals", "figure_reliability"),
    *RECORDING,
]
METHOD_FIGURES = [
    f"figure_{name} {variant}" for name in ("spectra", "pipeline") for variant in ("r2m_task", "r2m")
]


def prune(project: Project) -> None:
    project.run(sys.executable, "-m", "r2m", "prune", "--yes")


def merging(variants: tuple[str, ...], specialists: tuple[str, ...]) -> list[str]:
    """Jobs that make, score and show merges anew."""
    r2m = [name for name in variants if name.startswith("r2m")]
    return [
        *(f"{rule} {name}" for rule in ("tune", "merge") for name in variants),
        *(f"real_component {name}" for name in r2m),
        *(f"residual {name}/{specialist}" for name in r2m for specialist in specialists),
        *(f"score merge/{name}" for name in variants),
        *(f"figure_{figure} {name}" for figure in ("spectra", "pipeline") for name in r2m),
        "figure_tune",
        *(["onnx"] if REFERENCE in variants else []),
        *REPORTING,
    ]


def new_images(name: str) -> list[str]:
    """Jobs of a new image set, up to what lists all sets."""
    own = [f"forge {name}", f"trunk forged/{name}", f"contact_sheet {name}"]
    return [*own, "cues", "data_card", "members", "no_slices", "code"]


def scoring(*specialists: str) -> list[str]:
    """Jobs that score the models that are no merges."""
    return ["score_base", "score joint/joint", *(f"score specialist/{name}" for name in specialists)]


def test_nothing_changed(project: Project) -> None:
    assert project.jobs() == Counter()


def test_new_training_generator(project: Project) -> None:
    project.edit("generators.tps", {"family": "FR", "forge": "tps"})
    assert project.jobs() == Counter(
        [
            *new_images("tps"),
            *("finetune tps", "task_vector tps", "joint", "probe"),
            *merging(VARIANTS, ("swap", "up", "tps")),
            *scoring("swap", "up", "tps"),
        ]
    )


def test_new_unseen_generator_trains_nothing(project: Project) -> None:
    project.edit("generators.tps", {"family": "FR", "role": "unseen", "forge": "tps"})
    assert project.jobs() == Counter(
        [
            *new_images("tps"),
            *scoring("swap", "up"),
            *(f"score merge/{name}" for name in VARIANTS),
            *REPORTING,
            *METHOD_FIGURES,
        ]
    )


def test_learning_rate_of_one_generator(project: Project) -> None:
    project.edit("generators.swap.finetune", {"lr": 5e-4})
    assert project.jobs() == Counter(
        [
            *("finetune swap", "task_vector swap", "score specialist/swap"),
            *merging(VARIANTS, ("swap", "up")),
        ]
    )


def test_tuning_of_one_variant(project: Project) -> None:
    project.edit("merge.methods.ties.tune.keep", [0.3, 0.5])
    assert project.jobs() == Counter(merging(("ties",), ()))


def test_a_second_seed_trains_its_own_models_only(project: Project) -> None:
    project.edit("seeds", [0, 1])
    jobs = project.jobs()
    seeded = [
        *(f"{rule} {name}/1" for rule in ("finetune", "task_vector") for name in ("swap", "up")),
        "joint 1",
        *(f"{rule} {name}/1" for rule in ("tune", "merge") for name in VARIANTS),
        *(f"real_component {name}/1" for name in ("r2m_task", "r2m")),
        *(f"residual {name}/1/{specialist}" for name in ("r2m_task", "r2m") for specialist in ("swap", "up")),
        *(f"score merge/{name}/1" for name in VARIANTS),
        "score joint/joint/1",
        *(f"score specialist/{name}/1" for name in ("swap", "up")),
    ]
    trained = Counter(job for job in jobs if "1" in job.split()[-1].split("/"))
    assert trained == Counter(seeded)
    assert jobs - trained == Counter(REPORTING)


def test_display_label_of_one_generator(project: Project) -> None:
    project.edit("generators.swap.label", "Face swap")
    assert project.jobs() == Counter(
        ["score specialist/swap", *REPORTING, *METHOD_FIGURES, "data_card", "contact_sheet swap"]
    )


def test_enabling_a_method_adds_its_own_jobs(project: Project) -> None:
    project.edit("merge.methods.task_arithmetic", {"enabled": False})
    assert project.jobs() == Counter(["code"])
    project.edit("merge.methods.task_arithmetic.enabled", True)
    assert project.jobs() == Counter([*merging(("task_arithmetic",), ()), "code"])


def test_enabling_a_method_that_needs_statistics(project: Project) -> None:
    project.edit("merge.methods.fisher.enabled", True)
    statistics = ["statistics fisher/swap", "statistics fisher/up"]
    assert project.jobs() == Counter([*statistics, *merging(("fisher",), ()), "code"])


def test_switching_a_method_off_shows_the_others_only(project: Project) -> None:
    project.edit("merge.methods.ties.enabled", False)
    assert project.jobs() == Counter(["figure_tune", *REPORTING, "code"])
    project.snakemake("--", "results/tables/auc.csv")
    words = set(re.findall(r"\w+", (project / "results/tables/auc.csv").read_text()))
    assert "ties" not in words
    assert (project / "results/merged/ties/seed0/model.safetensors").exists(), "deleted unasked"
    prune(project)
    assert not list((project / "results").glob("*/ties/*"))


def test_resamples_and_reference_remake_no_scores(project: Project) -> None:
    remade = [job for job in REPORTING if job != "runtimes"]
    project.edit("evaluate.resamples", 200)
    assert project.jobs() == Counter(remade)
    project.edit("evaluate.resamples", 100)
    project.edit("evaluate.reference", "r2m")
    assert project.jobs() == Counter(["settings", "pages"]), "r2m is the reference already"
    project.edit("evaluate.reference", "r2m_task")
    assert project.jobs() == Counter([*remade, "onnx"])


def test_comments_and_layout_change_nothing(project: Project) -> None:
    source = project / "src/r2m/train/finetune.py"
    text = source.read_text()
    source.write_text(text.replace('"""Fine-tuning of', '"""The fine-tuning of', 1) + "\n\n# A remark.\n")
    params = project / "params.yaml"
    params.write_text("# A remark.\n\n" + params.read_text())
    rules = project / "workflow/rules/training.smk"
    rules.write_text("# A remark.\n" + rules.read_text())
    assert project.jobs() == Counter()


def test_code_of_one_merging_method(project: Project) -> None:
    path = "src/r2m/merge/methods/ties.py"
    (project / path).write_text((project / path).read_text() + "\n\nADDED = 1\n")
    assert project.jobs() == Counter([*merging(("ties",), ()), "code"])


def test_code_of_one_forgery(project: Project) -> None:
    """The forgery's digest changes for its generator only; that of the other goes on unchanged."""
    path = "src/r2m/forge/forgeries/swap.py"
    (project / path).write_text((project / path).read_text() + "\n\nADDED = 1\n")
    jobs = project.jobs()
    assert {job for job in jobs if job.startswith(("forge", "trunk", "finetune", "joint"))} == {
        "forge swap",
        "trunk forged/swap",
        "finetune swap",
        "joint",
    }


def test_images_of_other_times_are_the_same_images(project: Project) -> None:
    for path in [*(project / "drawn").rglob("*.png"), *(project / "sketch").rglob("*.png")]:
        path.touch()
    (project / "drawn" / "list.csv").write_text("a list")
    assert project.jobs() == Counter()


def test_two_images_swapped(project: Project) -> None:
    one, other = project / "drawn/p00/00.png", project / "drawn/p11/22.png"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    jobs = project.jobs()
    assert {job for job in jobs if job.startswith("faces")} == {"faces drawn"}
    assert {"forge swap", "finetune up"} <= set(jobs)


def test_images_that_were_removed_are_made_again(project: Project) -> None:
    shutil.rmtree(project / "results/forged/up/images")
    assert {job for job in project.jobs() if job.startswith(("faces", "forge"))} == {"forge up"}
    target = "results/forged/up/manifest.parquet"
    project.snakemake("--", target)
    assert list((project / "results/forged/up/images").rglob("*.jpg"))
    assert project.jobs("--", target) == Counter()


def test_labels_are_no_shell_code(project: Project) -> None:
    label = 'It\'s $(id -un) `id` "1" 50 %'
    project.edit("merge.methods.ties.label", label)
    project.snakemake("--", "results/tables/models.csv")
    models = pd.read_csv(project / "results/tables/models.csv")
    assert models.set_index("model")["label"]["ties"] == label


def test_nothing_is_deleted_unasked(project: Project) -> None:
    gone = project / "results/experiments/families/specialists/gone/seed0/model.safetensors"
    gone.parent.mkdir(parents=True)
    gone.touch()
    told = project.snakemake("--forcerun", "data_card", "--", "results/data_card.md")
    assert "`r2m prune` lists them" in told
    assert gone.exists()
    assert str(gone.relative_to(project.root)) in project.run(sys.executable, "-m", "r2m", "prune")
    assert gone.exists()
    prune(project)
    assert not gone.parents[1].exists()
    assert not project.jobs(), "what is asked for stays"


def test_removed_names_leave_nothing_behind(project: Project) -> None:
    project.edit("generators.inp", None)
    project.edit("merge.methods.r2m_task", None)
    for experiment in ("families", "methods", "sources"):
        project.edit(f"experiments.{experiment}.enabled", False)
    project.snakemake("--", "results/tables/auc.csv", "results/data_card.md")
    prune(project)
    tables = [path for path in (project / "results/tables").iterdir() if path.name != "metrics.json"]
    assert len(tables) == 27
    for path in [*tables, project / "results/data_card.md", project / "results/tables/metrics.json"]:
        words = set(re.findall(r"\w+", path.read_text()))
        assert not words & {"inp", "r2m_task"}, path
    records = {"logs", "benchmarks"}
    kept = [path for path in (project / "results").rglob("*") if records.isdisjoint(path.parts)]
    names = {"inp", "r2m_task", "forge-inp", "merge-r2m_task"}
    assert [path for path in kept if path.is_file() and names & {path.stem, *path.parts}] == []
