"""Jobs and stages: what they read, record and run, and how people pick them."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest

from r2m.errors import R2MError
from r2m.models.options import BackboneOptions
from r2m.plan.stage import Job, Stage
from r2m.session_files import Compute, SessionFiles
from r2m.train.options import FinetuneOptions

FILES = SessionFiles((Path("a"), Path("b")), (), Path("base"))


def job(**changes):
    """A call of `r2m.files:write_text`, whose arguments stand for those of any function."""
    parts = {
        "function": "r2m.files:write_text",
        "inputs": {"files": FILES, "heads": {"x": Path("head")}, "core": None},
        "outputs": {"out": Path("out")},
        "values": {"options": FinetuneOptions(), "compute": Compute(BackboneOptions()), "names": ["x"]},
    }
    return Job(**parts | changes)


def test_what_is_read_is_found_in_all_inputs_once():
    read = job(also=[Path("list"), Path("a")], receipts=[Path("receipt")]).reads
    assert read == ["a", "b", "base", "head", "list", "receipt"]


def test_nothing_runs_with_a_damaged_package(tmp_path):
    (tmp_path / "net").mkdir()
    network, receipt, out = tmp_path / "net/net.onnx", tmp_path / "net.json", tmp_path / "out.txt"
    network.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    record = {"package": "p", "version": "1", "sha256": "", "licence": "", "files": {"net.onnx": digest}}
    receipt.write_text(json.dumps(record))
    made = Job("r2m.files:write_text", {}, {"path": out}, {"text": "made"}, receipts=[receipt])
    network.write_bytes(b"wEights")
    with pytest.raises(R2MError, match=r"net\.onnx: is damaged .*`r2m job source net` fetches it again"):
        made.run()
    assert not out.exists()
    network.write_bytes(b"weights")
    made.run()
    assert out.read_text() == "made"


def test_the_record_is_plain_and_holds_everything():
    """Snakemake ignores params of other types, so a change in them would rerun nothing."""

    def is_plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and is_plain(part) for key, part in value.items())
        if isinstance(value, list):
            return all(map(is_plain, value))
        return value is None or isinstance(value, str | int | float | bool)

    record = job().record
    assert is_plain(record)
    assert record["options"]["steps"] == FinetuneOptions().steps
    assert record["files"]["manifests"] == ["a", "b"]
    assert record["compute"]["backbone"]["name"] == BackboneOptions().name


@pytest.mark.parametrize(
    "changes",
    [
        {"values": {"options": FinetuneOptions(steps=7)}},
        {"inputs": {"files": FILES}},
        {"outputs": {"out": Path("elsewhere")}},
        {"function": "r2m.files:discard"},
        {"modules": ["r2m.seeding"]},
    ],
)
def test_every_part_changes_the_record(changes):
    assert job(**changes).record != job().record


def test_jobs_travel_to_other_processes():
    assert pickle.loads(pickle.dumps(job())) == job()


def test_a_job_calls_its_function(tmp_path):
    Job("r2m.files:write_text", {}, {"path": tmp_path / "note"}, {"text": "hello"}).run(threads=2)
    assert (tmp_path / "note").read_text() == "hello"


def stage():
    pattern = "results/{model}/seed{seed}/{name}.txt"
    instances = [
        {"model": model, "seed": seed, "name": "x"} for model in ("swap", "up") for seed in ("0", "1")
    ]
    return Stage("train", {"text": pattern, "log": "results/{model}/seed{seed}/{name}.csv"}, job, instances)


def test_places_follow_from_the_wildcards():
    assert stage().wildcards == ["model", "seed", "name"]
    assert stage().log == "results/logs/train/{model}/seed{seed}/{name}.log"
    assert stage().benchmark == "results/benchmarks/train/{model}/seed{seed}/{name}.tsv"


def test_artifacts_are_those_of_the_jobs_asked_for():
    assert len(stage().artifacts()) == 8
    assert stage().artifacts(model="up", seed="1") == ["results/up/seed1/x.txt", "results/up/seed1/x.csv"]


def test_people_pick_jobs_by_values_or_names():
    assert [one["seed"] for one in stage().matching(["up"])] == ["0", "1"]
    assert list(stage().matching(["model=swap", "seed=1"])) == [{"model": "swap", "seed": "1", "name": "x"}]
    assert len(list(stage().matching([]))) == 4


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["swop"], "no job for 'swop'; did you mean 'swap'"),
        (["sed=1"], "unknown wildcard 'sed'; did you mean 'seed'"),
        (["seed=7"], "no job with seed=7"),
        (["model=swop"], "no job with model=swop; did you mean 'swap'"),
        (["swap", "model=up"], "model is given twice, as swap and as up"),
    ],
)
def test_wrong_picks_are_told(words, text):
    with pytest.raises(R2MError, match=text.replace("?", r"\?")):
        list(stage().matching(words))
