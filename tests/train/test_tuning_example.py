"""The tuning method of docs/extending.md."""

import sys

import pytest
import yaml

from detector_samples import VIT, load_detector
from docs_pages import example, module_from
from r2m.params import Params
from r2m.train.options import FinetuneOptions
from r2m.train.tuning import methods, registry
from r2m.train.tuning.tuned import tuned


@pytest.fixture
def biases(tmp_path, monkeypatch):
    """Put the example among the methods, for this test alone."""
    text = example("docs/extending.md", "python", '"""Biases: the shifts')
    (tmp_path / "biases.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.setitem(
        sys.modules,
        "r2m.train.tuning.methods.biases",
        module_from(tmp_path / "biases.py", "biases_example"),
    )
    registry.names.cache_clear()
    registry.get.cache_clear()
    yield
    registry.names.cache_clear()
    registry.get.cache_clear()


def test_the_example_trains_biases_alone(biases, base_files):
    given = yaml.safe_load(example("docs/extending.md", "yaml", "finetune:\n  lr"))["finetune"]
    options = FinetuneOptions.model_validate(given)
    detector = load_detector(base_files["vit"], VIT)
    with tuned(detector, options.tuning, 0) as tuning:
        trained = {name for name, p in detector.named_parameters() if p.requires_grad}
        assert "norm.bias" in tuning.state()
    assert "backbone.blocks.5.mlp.fc2.bias" in trained
    assert {"head.weight", "head.bias"} <= trained
    assert all(name.startswith("head.") or name.endswith(".bias") for name in trained)
    assert not any("norm" in name or "blocks.3." in name for name in trained)
    assert "biases" in str(Params.model_json_schema()["$defs"]["TuningOptions"])
