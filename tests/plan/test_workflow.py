"""The stages of whole workflows: their jobs, files and wildcards fit together."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml

from r2m.errors import R2MError
from r2m.params import load, parse
from r2m.plan.stage import _paths
from r2m.workflow import Workflow

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = (
    "params.yaml",
    "params/classical.yaml",
    "params/df40.yaml",
    "tests/workflow/tiny.yaml",
    "a data set",
)
EXTERNAL = ("data/sources.txt", "weights.safetensors", "data/df40.parquet", "data/clip-vit-l14.safetensors")


@pytest.fixture(params=CONFIGURATIONS)
def run(request, tmp_path, monkeypatch):
    """The workflow of a configuration, in a folder with the files that it names and nothing else."""
    for name in ("weights.safetensors", "data/clip-vit-l14.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return Workflow(parse(of_a_data_set()) if request.param == "a data set" else load(ROOT / request.param))


def of_a_data_set():
    """Return small params in which all but one generator are of a data set."""
    params = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    own = {"dataset": "df40"}
    params["datasets"] = {"df40": {"index": "data/df40.parquet"}}
    params["domains"] = {"ff": own | {"role": "train"}, "cdf": own | {"role": "test"}}
    params["generators"] = {
        "simswap": own | {"family": "FS"},
        "swap": {"family": "FS", "forge": "swap"},
        "reenact": own | {"family": "FR", "method": "fomm"},
        "heygen": own | {"family": "FR", "role": "unseen"},
    }
    for name in ("families", "methods"):
        params["experiments"][name]["generators"] = ["heygen"]
    params["experiments"]["sources"]["domain"] = "cdf"
    return params


def jobs(run):
    return [stage.job(**wildcards) for stage in run.stages.values() for wildcards in stage.instances]


def test_jobs_give_their_functions_what_they_take(run):
    for job in jobs(run):
        module, name = job.function.split(":")
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        arguments = {**job.inputs, **job.outputs, **job.values}
        assert arguments.keys() == parameters.keys() - {"threads"}, job.function


def test_what_jobs_read_is_what_others_write(run):
    written = {path for stage in run.stages.values() for path in stage.artifacts()}
    read = {path for job in jobs(run) for path in (*job.reads, *map(str, job.settled))}
    assert sorted(read - written - set(EXTERNAL)) == []


def test_no_two_jobs_write_one_file(run):
    written = [path for stage in run.stages.values() for path in stage.artifacts()]
    assert len(written) == len(set(written))


def test_values_of_wildcards_match_their_patterns(run):
    for stage in run.stages.values():
        for wildcards in stage.instances:
            assert list(wildcards) == stage.wildcards or set(wildcards) == set(stage.wildcards)
            for name, value in wildcards.items():
                assert re.fullmatch(run.wildcards[name], value)


def test_everything_that_is_reported_is_written(run):
    written = {path for stage in run.stages.values() for path in stage.artifacts()}
    assert set(run.reported) | set(run.paper) <= written


def test_image_sets_of_a_data_set_wait_for_its_validation():
    run = Workflow(parse(of_a_data_set()))
    waiting = {
        next(iter(wildcards.values())): path
        for name in ("faces", "forge")
        for wildcards in run.main[name].instances
        for path in run.main[name].job(**wildcards).reads
        if path.startswith("results/slices/")
    }
    assert waiting == {
        name: f"results/slices/{name}" for name in ("ff", "cdf", "simswap", "reenact", "heygen")
    }
    for name in waiting:
        assert run.main["slice"].job(set=name).reads == ["results/validation/df40/report.json"]
    assert "results/validation/df40/report.html" in run.reported


def test_an_experiment_takes_fakes_of_a_data_set_again():
    """People whom it trains on must not be tested on, and a generator that it trains needs all splits."""
    run = Workflow(parse(of_a_data_set()))
    again = run.experiments["sources_forge"]
    assert {one["generator"] for one in again.instances} == {"simswap", "swap", "reenact", "heygen"}
    job = again.job(generator="simswap")
    assert job.values["domains"] == {
        "ff": Path("results/faces/ff/manifest.parquet"),
        "cdf": Path("results/experiments/sources/faces/cdf/manifest.parquet"),
    }
    assert "results/forged/simswap/manifest.parquet" in job.reads
    trained = run.experiments["families_forge"].job(generator="heygen")
    assert [part.splits for part in trained.values["parts"]] == ["all", "test_if_any", "all", "all"]


def test_a_group_changes_what_readers_see_only(tmp_path, monkeypatch):
    (tmp_path / "weights.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())

    def records():
        return [
            (stage.name, stage.job(**wildcards).record)
            for stage in Workflow(parse(params)).stages.values()
            for wildcards in stage.instances
        ]

    before = records()
    params["generators"]["inp"]["group"] = "new"
    changed = {name for (name, one), (_, other) in zip(before, records(), strict=True) if one != other}
    assert {name for name in changed if not name.startswith(("figure_", "table_"))} == {
        *("tables", "data_card", "model_card", "settings"),
    }
    assert {"figure_heatmap", "table_composability"} <= changed


def test_a_merge_that_is_switched_off_leaves_no_job_but_a_stage_of_dvc():
    params = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    params["merge"]["methods"]["ties"]["enabled"] = False
    run = Workflow(parse(params))
    assert not [path for stage in run.main.values() for path in stage.artifacts() if "/ties/" in path]
    assert run.tracked["merge-ties"].files == []
    assert run.tracked["merge-ties"].digest == run.tracked["merge-fisher"].digest
    assert run.tracked["merge-r2m"].digest != run.tracked["merge-weight_averaging"].digest


def test_only_what_dvc_takes_whole_keeps_it_from_being_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Workflow(load(ROOT / "tests/workflow/tiny.yaml"))
    ours = ("results/experiments/gone/table.csv", "results/notes.txt")
    taken = ("results/specialists/gone/seed0/model.safetensors", "results/tune/gone/seed0/chosen.json")
    for name in (*ours, *taken):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert set(map(str, run.orphans())) == {*ours, *taken}
    assert set(map(str, run.untracked())) == set(taken)


def test_links_below_results_are_orphans_but_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/link").symlink_to(tmp_path / "elsewhere")
    assert Workflow(load(ROOT / "tests/workflow/tiny.yaml")).orphans() == [Path("results/link")]


def test_packages_are_fetched_and_a_pool_is_made_for_the_forgeries_that_need_them(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    params = load(ROOT / "params.yaml").model_dump(exclude_unset=True)
    params["experiments"] = {}

    def planned(*generators):
        known = {name: {**params["generators"][name], "role": "train"} for name in generators}
        known = {name: {key: one[key] for key in one if key != "group"} for name, one in known.items()}
        run = Workflow(parse({**params, "generators": known}))
        made = run.stages["pool"].artifacts()
        return run.plan.packages, made, run.stages["forge"]

    ours = ["celeba", "clip", "faces", "orl"]
    assert planned("tps", "poisson")[:2] == (ours, [])
    assert planned("tps", "esrgan")[:2] == (sorted([*ours, "esrgan"]), [])
    packages, made, forge = planned("gan", "gan_swap", "relight")
    assert packages == sorted([*ours, "stylegan", "styletransfer"])
    assert made == ["results/pool/stylegan.safetensors"]
    assert made[0] in forge.job(generator="gan").reads
    assert "data/raw/stylegan.json" in forge.job(generator="gan_swap").reads
    assert made[0] not in forge.job(generator="relight").reads
    assert "data/raw/styletransfer.json" in forge.job(generator="relight").reads


@pytest.mark.parametrize("name", ["params.yaml", "params/classical.yaml"])
def test_who_opens_a_package_compares_it_with_its_receipt(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    run = Workflow(load(ROOT / name))
    opening = set()
    for key, stage in run.stages.items():
        for job in [] if key == "source" else [stage.job(**one) for one in stage.instances]:
            named = [path for path in _paths({**job.inputs, **job.values}) if path.is_relative_to("data/raw")]
            opened = {path.parts[2] for path in named if path.suffix != ".json"}
            assert opened == {path.stem for path in job.receipts}, f"{key}: {job.function}"
            opening |= {key} if opened else set()
    assert {"base", "faces", "forge"} <= opening


def test_the_pool_depends_on_no_photograph(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = Workflow(load(ROOT / "params.yaml"))
    job = run.stages["pool"].job()
    assert sorted(job.reads) == ["data/raw/faces.json", "data/raw/stylegan.json"]
    other = load(ROOT / "params.yaml").model_dump(exclude_unset=True)
    other["domains"]["celeba"]["limit"] = 100
    other["faces"]["margin"] = 1.3
    other["generators"]["gan_swap"]["options"] = {"strength": 0.5}
    assert Workflow(parse(other)).stages["pool"].job().record == job.record


def test_forgeries_that_find_faces_need_a_detector(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    for forge, family in (("gan", "EFS"), ("gan_swap", "FS"), ("dcgan", "EFS")):
        params["generators"]["swap"] = {"family": family, "forge": forge}
        expected = (
            rf"generators\.swap\.forge: '{forge}' needs a face detector, and `faces\.detector` is `none`"
        )
        with pytest.raises(R2MError, match=expected):
            parse(params)
    params["generators"]["swap"] = {"family": "FE", "forge": "esrgan"}
    assert parse(params).generators["swap"].forge == "esrgan"


def test_detectors_of_a_data_set_say_whether_its_images_are_encoded():
    params = of_a_data_set()
    assert not parse(params).encodes_reals
    params["datasets"]["df40"]["encode"] = "jpeg"
    assert parse(params).encodes_reals
    assert load(ROOT / "tests/workflow/tiny.yaml").encodes_reals
