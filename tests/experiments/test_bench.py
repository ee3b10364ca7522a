from dataclasses import replace

import numpy as np
import pytest
import torch

from detector_samples import VIT, load_detector, session_of
from r2m.errors import R2MError
from r2m.evaluate.bench import open_bench
from r2m.evaluate.scores import score
from r2m.merge import merging, registry
from r2m.merge.heads import merge_heads
from r2m.merge.tensors import apply
from r2m.models import checkpoint


def test_scores_are_those_of_a_merged_detector(bench, bench_files):
    method = registry.get("task_arithmetic")
    options = method.options(scaling=0.5)
    names = ["swap", "third"]
    own = bench.only(names)
    found = bench.scores(own.merged(method, options), own.head())
    base, _ = checkpoint.load(bench_files["files"].base)
    task_vectors = {name: checkpoint.load(bench_files["parts"].task_vectors[name])[0] for name in names}
    heads = {name: checkpoint.load(bench_files["parts"].heads[name])[0] for name in names}
    update, _ = merging.merge(method, task_vectors, options)
    detector = load_detector(bench_files["files"].base, VIT)
    detector.load_tensors(apply(base, update) | merge_heads(heads, "average"))
    expected = score(session_of(detector, bench.inputs))
    assert found["image_id"].tolist() == expected["image_id"].tolist()
    np.testing.assert_allclose(found["logit"], expected["logit"], atol=1e-5)


@pytest.mark.parametrize("name", ["ties", "pcb", "lines"])
def test_shares_and_depths_refer_to_frozen_tensors_too(bench, bench_files, name):
    method = registry.get(name)
    base, _ = checkpoint.load(bench_files["files"].base)
    assert bench.base.keys() < bench.shapes.keys() <= base.keys()
    assert not [key for key in bench.task_vectors["swap"] if key.startswith("blocks.0.")]
    update, _ = merging.merge(method, bench.task_vectors, method.options(), base=base)
    expected, found = apply(base, update), bench.merged(method, method.options())
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=0)


def test_one_merge_leaves_nothing_behind_in_the_next(bench):
    method = registry.get("weight_averaging")
    head = bench.head("base")
    first = bench.scores(bench.merged(method, method.options()), head)
    bench.scores(bench.updated({}), bench.head("specialist:up"))
    again = bench.scores(bench.merged(method, method.options()), head)
    assert first["logit"].tolist() == again["logit"].tolist()


def test_features_times_a_head_are_logits(bench):
    tensors = bench.updated({})
    head = bench.head("specialist:swap")
    scores = bench.scores(tensors, head)
    rows = bench.inputs.select(split=["val", "test"]).sample(frac=1, random_state=0)
    features = bench.features(tensors, rows)
    logits = features @ head["head.weight"].numpy()[0] + head["head.bias"].item()
    expected = scores.set_index("image_id")["logit"].loc[rows["image_id"]]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_files_of_another_base_are_refused(bench_files, tmp_path):
    tensors, _ = checkpoint.load(bench_files["parts"].task_vectors["swap"])
    other = tmp_path / "other.safetensors"
    checkpoint.save(other, tensors, {"base_hash": "another"})
    with pytest.raises(R2MError, match=r"other\.safetensors: made from base another"):
        open_bench(**bench_files | {"parts": replace(bench_files["parts"], task_vectors={"swap": other})})
