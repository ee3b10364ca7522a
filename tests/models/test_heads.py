import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from detector_samples import VIT, random_weights
from r2m.errors import R2MError
from r2m.models.backbone import Detector
from r2m.models.heads import HEADS, average_head, fake_logit, head_type, initial_head
from r2m.train.probe import fit_head, fit_lda_head

pytestmark = pytest.mark.usefixtures("one_thread")


def detector_of(name: str) -> Detector:
    detector = Detector(VIT.model_copy(update={"head": name}))
    detector.load_tensors(random_weights(VIT) | initial_head(detector.width, 0, head=name))
    return detector.eval()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_initial_tensors_are_those_of_the_module(name, outputs):
    tensors = initial_head(6, 1, outputs, name)
    module = head_type(name)(6, outputs)
    module.load_state_dict({key.removeprefix("head."): tensor for key, tensor in tensors.items()})
    assert len(tensors["head.weight"]) == outputs
    assert module(torch.randn(4, 6)).shape == (4, outputs)
    again = initial_head(6, 1, outputs, name)
    assert all(torch.equal(tensors[key], again[key]) for key in tensors)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("fit", [fit_head, fit_lda_head])
def test_fitted_heads_are_linear_in_what_they_see(name, fit):
    random = np.random.default_rng(0)
    label = np.repeat([0, 1], 40)
    x = random.normal(size=(80, 6)).astype(np.float32)
    x[:, 0] += 2 * label
    tensors = fit(x, label, name)
    head = head_type(name)(6, 1)
    head.load_state_dict({key.removeprefix("head."): tensor for key, tensor in tensors.items()})
    with torch.no_grad():
        logits = fake_logit(head(torch.from_numpy(x))).numpy()
    assert logits[label == 0].mean() < 0 < logits[label == 1].mean()
    seen = head_type(name).seen(torch.from_numpy(x)).numpy()
    plain = LogisticRegression(class_weight="balanced").fit(seen, label)
    assert np.corrcoef(plain.decision_function(seen), logits)[0, 1] > 0.95


def test_a_cosine_head_knows_directions_only():
    head = head_type("cosine")(4, 2)
    head.load_state_dict(
        {"weight": torch.randn(2, 4), "scale": torch.tensor([3.0, 5.0]), "bias": torch.tensor([0.1, -0.2])}
    )
    x = torch.randn(7, 4)
    cosines = torch.stack([F.cosine_similarity(x, row[None]) for row in head.weight], dim=1)
    torch.testing.assert_close(head(x), cosines * head.scale + head.bias)
    torch.testing.assert_close(head(9 * x), head(x))


def test_heads_count_alike_in_the_average():
    weights = [torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])]
    linear = [{"head.weight": weight, "head.bias": torch.ones(1)} for weight in weights]
    assert average_head(linear)["head.weight"].tolist() == [[1.5, 0.25]]
    cosine = [{**head, "head.scale": torch.tensor([4.0])} for head in linear]
    average = average_head(cosine, "cosine")
    assert average["head.weight"].tolist() == [[0.5, 0.5]]
    assert average["head.scale"].item() == 4


def test_a_cosine_detector_does_not_depend_on_the_length_of_features():
    detector = detector_of("cosine")
    x = torch.randn(3, 5, 64)
    with torch.no_grad():
        features = detector.features(x)
        expected = 10 * F.cosine_similarity(features, detector.head.weight)
        torch.testing.assert_close(detector(x), expected)
    assert {"head.weight", "head.scale", "head.bias"} <= detector.trainable_state().keys()
    assert detector(x).abs().max() <= 10 + math.ulp(10)


def test_the_head_of_another_type_is_refused():
    with pytest.raises(R2MError, match=r"do not fit the head: unexpected scale \(1,\)"):
        detector_of("linear").load_tensors(initial_head(64, 0, head="cosine"))
    with pytest.raises(R2MError, match=r"do not fit the head: missing scale \(1,\)"):
        detector_of("cosine").load_tensors(initial_head(64, 0))


def test_unknown_head():
    with pytest.raises(
        R2MError, match=r"params.yaml: backbone.head: unknown head 'mlp'; expected linear or cosine"
    ):
        Detector(VIT.model_copy(update={"head": "mlp"}))
