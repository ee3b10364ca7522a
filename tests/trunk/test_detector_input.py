import cv2
import torch

from detector_samples import CONVNET, VIT, load_detector
from r2m.trunk.inputs import Inputs, detector_input


def images_of(rows):
    return [cv2.imread(path) for path in rows["path"]]


def test_fresh_activations_are_the_cached_ones(image_sets, trunk_files, base_files, one_thread):
    inputs = Inputs(image_sets.paths("swap"), [trunk_files["swap"]], VIT)
    rows = inputs.select(split="test")
    detector = load_detector(base_files["vit"], VIT).eval()
    found = detector_input(detector, images_of(rows), VIT.name, torch.device("cpu"), "fp32")
    torch.testing.assert_close(found, inputs.fetch(rows), atol=2e-3, rtol=1e-3)
    assert torch.equal(found, found.half().float())


def test_without_a_trunk_it_is_the_images(image_sets, base_files, one_thread):
    inputs = Inputs(image_sets.paths("swap"), [], CONVNET)
    rows = inputs.select(split="test")
    detector = load_detector(base_files["convnet"], CONVNET).eval()
    found = detector_input(detector, images_of(rows), CONVNET.name, torch.device("cpu"), "fp32")
    torch.testing.assert_close(found, inputs.fetch(rows))
