"""A miniature of DF40 with an index: read in place, validated first, made again only where slices change."""

import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from workflow_project import REPOSITORY, UP_TO_DATE, Project

from dataset_samples import Video, alone, draw, reals, rows_of, swapped, synthesized, write_rows
from r2m import manifest
from r2m.index.methods import DF40

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("datasets")]

INDEX = "data/df40.parquet"
VIDEOS = [
    *reals(),
    *swapped("simswap"),
    *swapped("facevid2vid", "FR"),
    *synthesized("ddim"),
    *swapped("mobileswap"),
    *alone("heygen", "FR"),
]
GENERATORS = {
    "simswap": {"family": "FS", "dataset": "df40"},
    "reenact": {"family": "FR", "dataset": "df40", "method": "facevid2vid"},
    "ddim": {"family": "EFS", "dataset": "df40"},
    "mobileswap": {"family": "FS", "role": "unseen", "dataset": "df40"},
    "heygen": {"family": "FR", "role": "unseen", "dataset": "df40"},
}


def index(project: Project, videos: list[Video]) -> None:
    """Write the index, and draw the images that are not there yet."""
    rows, root = rows_of(videos), project / "df40"
    draw(root, rows)
    rows = [{**row, "size": (root / row["path"]).stat().st_size} for row in rows]
    write_rows(project / INDEX, Path("/somewhere"), rows)


@pytest.fixture(scope="module")
def run(bare: Project) -> Project:
    """A finished run; not to be changed."""
    bare.snakemake()
    return bare


@pytest.fixture(scope="module")
def bare(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository with the data set and its index, committed."""
    project = prepared.copy(tmp_path_factory.mktemp("datasets") / "project")
    index(project, VIDEOS)
    project.edit("datasets", {"df40": {"index": INDEX, "root": "df40", "frames": 2}})
    project.edit(
        "domains",
        {name: {"dataset": "df40", "role": role} for name, role in (("ff", "train"), ("cdf", "test"))},
    )
    project.edit("generators", GENERATORS)
    project.edit("merge.methods", {"weight_averaging": {}})
    project.edit("experiments", {})
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "A data set")
    return project


@pytest.fixture
def changed(run: Project, tmp_path: Path) -> Project:
    """A copy of the finished run that a test may change."""
    return run.copy(tmp_path / "project")


def images(project: Project, path: str) -> list[str]:
    files = (file for file in (project / path).rglob("*") if file.is_file())
    return sorted(file.name for file in files if not file.name.startswith("."))


def test_tables_have_every_family_domain_and_protocol(run: Project) -> None:
    table = pd.read_csv(run / "results/tables/auc.csv", keep_default_na=False).drop_duplicates("test_set")
    protocols = table.set_index("test_set")["protocol"].to_dict()
    assert protocols == {
        **{f"ff/{name}": "in_distribution" for name in ("simswap", "reenact", "ddim")},
        **{f"cdf/{name}": "cross_dataset" for name in ("simswap", "reenact", "ddim", "mobileswap")},
        "ff/mobileswap": "unseen_generator",
        "heygen/heygen": "unseen_generator",
    }
    assert set(table["family"]) == {"FS", "FR", "EFS"}
    assert dict(zip(table["test_set"], table["n_real"], strict=True))["ff/ddim"] == 8
    assert (run / "results/tables/main.md").is_file()
    videos = pd.read_csv(run / "results/tables/video.csv", keep_default_na=False)
    assert set(videos["test_set"]) == set(protocols)
    assert (videos["frames_most"] == 2).all()


def test_no_image_is_copied(run: Project) -> None:
    for name in ("faces/ff", "faces/cdf", *(f"forged/{name}" for name in GENERATORS)):
        assert images(run, f"results/{name}/images") == ["elsewhere.csv"]
    paths = manifest.read(run / "results/faces/ff/manifest.parquet")["path"]
    assert paths.str.startswith("results/.state/roots/df40/").all()
    assert (run / paths[0]).resolve().is_relative_to(run / "df40")


def test_files_that_were_moved_are_validated_again_and_change_nothing(changed: Project) -> None:
    (changed / "df40").rename(changed / "elsewhere")
    changed.edit("datasets.df40.root", "elsewhere")
    assert set(changed.jobs()) == {"validate df40", "settings", "pages"}, "settings hold all params"
    changed.snakemake("--", "results/scores/merge/weight_averaging/seed0/scores.parquet")


def test_reals_that_methods_share_are_scored_once(run: Project) -> None:
    scores = pd.read_parquet(run / "results/scores/merge/weight_averaging/seed0/scores.parquet")
    real = scores[scores["label"] == 0]
    assert real["image_id"].is_unique
    assert Counter(real["set"]) == {"ff": 12, "cdf": 8, "heygen": 6}


def test_the_data_set_was_validated_and_the_report_shows_it(run: Project) -> None:
    assert "results/validation/df40/report.html" in (run / "results/report.html").read_text()
    log = (run / "results/logs/validate/df40.log").stat().st_mtime
    assert log <= (run / "results/logs/faces/ff.log").stat().st_mtime


def test_dvc_has_nothing_to_do_either(run: Project) -> None:
    assert run.jobs() == Counter()
    assert UP_TO_DATE in run.dvc("status")
    assert UP_TO_DATE in run.dvc("repro")
    assert run.run(sys.executable, "-m", "r2m", "prune").startswith("0 files")


def test_an_index_made_anew_makes_nothing_again(changed: Project) -> None:
    (changed / INDEX).unlink()
    index(changed, VIDEOS)
    assert changed.jobs() == Counter()
    (changed / "results/validation/df40/report.json").unlink()
    assert changed.jobs() == Counter(["validate df40"])


def test_another_method_trains_one_specialist_and_what_depends_on_all(changed: Project) -> None:
    index(changed, [*VIDEOS, *swapped("e4s")])
    assert changed.jobs() == Counter(["validate df40"])
    changed.edit("generators.e4s", {"family": "FS", "dataset": "df40"})
    jobs = changed.jobs()
    assert {
        job for job in jobs if job.startswith(("forge", "faces", "trunk", "finetune", "task_vector"))
    } == {*("forge e4s", "trunk forged/e4s", "finetune e4s", "task_vector e4s")}
    assert {"joint", "probe", "merge weight_averaging", "tables"} <= set(jobs)


def test_a_changed_slice_makes_its_own_set_again(changed: Project) -> None:
    more = Video(
        "DF40/mobileswap/cdf/frames", "id0_id3_0001", "mobileswap", "FS", "cdf", people=("id0", "id3")
    )
    index(changed, [*VIDEOS, more])
    jobs = changed.jobs()
    assert {job for job in jobs if job.startswith(("slice", "forge", "faces", "trunk", "finetune"))} == {
        *("slice mobileswap", "forge mobileswap", "trunk forged/mobileswap")
    }
    assert {"validate df40", "tables", "score merge/weight_averaging"} <= set(jobs)


def test_a_new_index_hides_no_other_change(changed: Project) -> None:
    index(changed, [*VIDEOS, *swapped("e4s")])
    changed.edit("generators.simswap.finetune", {"lr": 5e-4})
    assert {"validate df40", "finetune simswap", "tables"} <= set(changed.jobs())


def test_other_frames_make_all_sets_again(changed: Project) -> None:
    changed.edit("datasets.df40.frames", 3)
    jobs = changed.jobs()
    assert jobs["validate df40"] == 0
    assert {"faces ff", "faces cdf", *(f"forge {name}" for name in GENERATORS)} <= set(jobs)


def test_a_leak_stops_the_run_and_makes_nothing_again_once_it_is_mended(changed: Project) -> None:
    leaking = [replace(video, split="val") if video.name == "000_001" else video for video in VIDEOS]
    index(changed, leaking)
    output = changed.snakemake("--keep-going", code=1)
    assert re.search(r"results/logs/validate/df40\.log: r2m: error: .*data/df40\.parquet", output)
    index(changed, VIDEOS)
    assert changed.jobs() == Counter(["validate df40"])


def test_mistakes_are_told_before_anything_runs(changed: Project) -> None:
    changed.edit("generators.ddim.method", "ddmi")
    output = changed.snakemake("--dry-run", code=1)
    assert (
        "params.yaml: generators.ddim.method: data/df40.parquet holds no method 'ddmi'; did you mean"
        in output
    )
    assert "Traceback" not in output


def test_restored_clone_has_nothing_to_do(changed: Project, tmp_path: Path) -> None:
    changed.git("add", "--all")
    changed.git("commit", "--quiet", "--message", "Results")
    changed.dvc("remote", "add", "--default", "folder", str(tmp_path / "remote"))
    changed.git("commit", "--quiet", "--all", "--message", "Remote")
    changed.dvc("push", "--quiet")
    changed.git("clone", "--quiet", str(changed.root), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run(sys.executable, "-m", "r2m", "restore")
    assert UP_TO_DATE in clone.dvc("status")
    assert clone.jobs() == Counter()
    assert clone.git("status", "--porcelain") == ""


def test_dvc_sees_what_an_index_changes(changed: Project) -> None:
    more = Video(
        "DF40/mobileswap/cdf/frames", "id0_id3_0001", "mobileswap", "FS", "cdf", people=("id0", "id3")
    )
    index(changed, [*VIDEOS, more])
    assert "validate@df40" in changed.dvc("status")
    output = changed.dvc("repro", "forge@mobileswap", "forge@simswap")
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
    assert ran == ["validate@df40", "slices", "forge@mobileswap"]


@pytest.mark.parametrize(("per", "specialists"), [("family", 3), ("generator", 31)])
def test_dry_run_of_df40(bare: Project, tmp_path: Path, per: str, specialists: int) -> None:
    """The configuration for DF40 over a miniature with all of its generators."""
    project = bare.copy(tmp_path / "project")
    videos = reals()
    for method in DF40:
        if method.is_test_only:
            videos += alone(method.name, method.family)
        else:
            videos += (
                synthesized(method.name) if method.family == "EFS" else swapped(method.name, method.family)
            )
    index(project, videos)
    shutil.copy(project / "weights.safetensors", project / "data/clip-vit-l14.safetensors")  # no job reads it
    shutil.copy(REPOSITORY / "params/df40.yaml", project / "params.yaml")
    project.edit("datasets.df40.root", "df40")
    project.edit("specialists.per", per)
    jobs = Counter(job.split()[0] for job in project.jobs().elements())
    assert jobs["validate"] == jobs["joint"] == 1
    assert jobs["faces"] == 2
    assert jobs["forge"] == len(DF40)
    assert jobs["finetune"] == jobs["task_vector"] == specialists
    assert jobs["tune"] == jobs["merge"] == 7
    assert jobs["score"] == specialists + 8
    assert jobs["trunk"] == jobs["source"] == 0
