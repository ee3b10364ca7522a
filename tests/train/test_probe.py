import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from detector_samples import VIT, load_detector, session_of
from r2m.train.probe import fit_head
from r2m.train.rows import rows_of
from r2m.trunk.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")


def test_head_separates_and_ignores_the_scale_of_features():
    random = np.random.default_rng(0)
    label = np.repeat([0, 1], [30, 90])
    x = random.normal(size=(120, 6)) * 10.0 ** np.arange(-2, 4) + 5
    x[:, 2] += label * 30
    x[:, 5] = 7  # constant
    head = fit_head(x, label)
    assert head["head.weight"].shape == (1, 6)
    logits = x @ head["head.weight"].numpy()[0] + head["head.bias"].numpy()
    assert roc_auc_score(label, logits) > 0.99
    assert logits[label == 0].mean() < 0 < logits[label == 1].mean()
    rescaled = fit_head(x * 8, label)
    torch.testing.assert_close(rescaled["head.weight"] * 8, head["head.weight"], rtol=1e-3, atol=1e-6)


def test_probe_of_the_base(image_sets, base_files, trunk_files):
    names = ("drawn", "swap")
    inputs = Inputs(image_sets.paths(*names), [trunk_files[name] for name in names], VIT)
    detector = load_detector(base_files["vit"], VIT)
    fakes, _ = rows_of(inputs, ["swap"], "train")
    session = session_of(detector, inputs)
    x = session.pooled(fakes, batch_size=3)
    assert x.shape == (len(fakes), 64)
    np.testing.assert_allclose(session.pooled(fakes), x, atol=1e-5)
    weight = detector.head.weight.detach().numpy()[0]
    np.testing.assert_allclose(session.predict(fakes), x @ weight, atol=1e-4)
