"""Every experiment is found, declared without heavy libraries, and takes no other one's table."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest
from docutils.core import publish_parts

from r2m.errors import R2MError
from r2m.experiments import registry, stages
from r2m.experiments.experiment import Experiment
from r2m.params import load
from r2m.plan.plan import Plan

ORDER = (
    *("inversion", "similarity", "rationale", "heads", "ablation", "composability"),
    *("hostile", "robustness", "explanation", "families", "methods", "sources", "multiclass"),
)
# The stages of one experiment that another has as well.
SHARED = {"methods": ["families_forge", "families_trunk"]}


def test_experiments_in_the_order_of_display():
    assert registry.names() == ORDER
    assert tuple(registry.ExperimentsOptions.model_fields) == ORDER
    assert registry.ExperimentsOptions().enabled == []
    assert registry.ExperimentsOptions.model_validate({"heads": {"enabled": True}}).enabled == ["heads"]


@pytest.mark.parametrize("name", ORDER)
def test_an_experiment_says_what_it_is(name):
    experiment = registry.get(name)
    assert isinstance(experiment, Experiment)
    assert experiment.name == name
    assert experiment.title
    assert re.search(r"\b([Ll]ook|[Rr]ead|[Cc]ompare)\b", experiment.caption)
    settings = {"halt_level": 2, "report_level": 2}
    parts = publish_parts(experiment.caption, writer="html", settings_overrides=settings)
    assert "system-message" not in parts["body"]
    assert parts["body"].count("<p>") == 1
    assert experiment.options.model_fields["enabled"].default is False
    assert experiment.options.__doc__


def test_an_unknown_experiment_is_told_with_the_nearest():
    with pytest.raises(R2MError, match="unknown experiment 'abblation'; did you mean 'ablation'"):
        registry.get("abblation")


def test_experiments_are_declared_without_heavy_libraries():
    """params.yaml is checked against the options of all of them before every run."""
    code = (
        "import sys\n"
        "from r2m.experiments import registry\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'cv2', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("stage", ["table", "figure"])
def test_an_experiment_that_there_is_not(stage, tmp_path, context):
    path = tmp_path / "table.csv"
    path.write_text("merge\n")
    read = {"sources": [path]} if stage == "table" else {"table": path}
    with pytest.raises(R2MError, match="unknown experiment 'nonsense'; expected one of ablation"):
        getattr(stages, stage)(experiment="nonsense", context=context, out=tmp_path / "out", **read)
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("name", ORDER)
def test_the_table_of_another_experiment_is_refused(name, tmp_path, context):
    path = tmp_path / "table.csv"
    path.write_text("nothing,that,they,have\n1,2,3,4\n")
    with pytest.raises(R2MError, match=rf"table\.csv: expected the table of the experiment {name}; lacks"):
        stages.figure(experiment=name, table=path, context=context, out=tmp_path / "figure")
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("name", ORDER)
def test_jobs_give_their_functions_what_they_take(name, request):
    params = load(request.config.rootpath / "tests/workflow/tiny.yaml")
    stages_of = registry.get(name).stages(Plan(params), params.experiments.of(name))
    for stage in stages_of:
        if stage.name not in SHARED.get(name, []):
            assert stage.place.startswith(f"experiments/{name}")
        for wildcards in stage.instances:
            job = stage.job(**wildcards)
            module, function = job.function.split(":")
            signature = inspect.signature(getattr(importlib.import_module(module), function))
            arguments = {**job.inputs, **job.outputs, **job.values}
            if "threads" in signature.parameters:
                arguments["threads"] = 1
            assert arguments.keys() == signature.parameters.keys()
            if job.function == "r2m.experiments.stages:run":
                own = importlib.import_module(f"r2m.experiments.{name}").run
                assert inspect.signature(own).bind(
                    None, None, **job.inputs["inputs"], **job.values["values"], **job.outputs["outputs"]
                )
                assert f"r2m.experiments.{name}:run" in job.modules
            assert job.record
