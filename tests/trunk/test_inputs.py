import hashlib

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from detector_samples import CONVNET, IDENTITIES, VIT, load_detector
from r2m import manifest
from r2m.data.images import resized
from r2m.errors import R2MError
from r2m.models import checkpoint
from r2m.models.preprocess import load_images, normalization, stacked
from r2m.models.read_ahead import read_ahead
from r2m.models.weights import WeightsFile
from r2m.models.writer import WeightsWriter
from r2m.trunk import inputs as module
from r2m.trunk import stages
from r2m.trunk.inputs import Inputs, groups, images_digest
from r2m.trunk.options import AugmentOptions

pytestmark = pytest.mark.usefixtures("one_thread")


def inputs_of(image_sets, trunk_files, *names, **kwargs):
    return Inputs(image_sets.paths(*names), [trunk_files[name] for name in names], VIT, **kwargs)


def write_activations(manifest, base, path):
    stages.trunk(manifest=manifest, base=base, backbone=VIT, device="cpu", precision="fp32", activations=path)


def test_trunk_file(image_sets, trunk_files, base_files):
    tensors, metadata = checkpoint.load(trunk_files["swap"])
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        **{f"drawn/{split}": (n, 5, 64) for split, n in IDENTITIES.items()},
        "sketch/test": (3, 5, 64),
    }
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert metadata["base_hash"] == checkpoint.digest(checkpoint.load(base_files["vit"])[0])


def test_cached_activations_are_those_of_the_image(image_sets, trunk_files, base_files):
    inputs = inputs_of(image_sets, trunk_files, "drawn", "swap")
    rows = inputs.rows.sample(7, random_state=0)
    mean, std = normalization(VIT.name)
    detector = load_detector(base_files["vit"], VIT).eval()
    with torch.no_grad():
        expected = detector.trunk((load_images(list(rows["path"]), VIT.image_size) - mean) / std)
    fetched = inputs.fetch(rows)
    assert fetched.dtype == torch.float32
    torch.testing.assert_close(fetched, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(inputs.fetch(rows), fetched)


def test_only_the_activations_that_are_asked_for_are_read(image_sets, trunk_files, monkeypatch):
    inputs = inputs_of(image_sets, trunk_files, "drawn", "swap")
    whole = {name: checkpoint.load(trunk_files[name])[0] for name in ("drawn", "swap")}
    rows = inputs.rows.sample(5, random_state=1)
    pieces = []
    read = WeightsFile.read
    monkeypatch.setattr(WeightsFile, "read", lambda *args: (pieces.append(read(*args)), pieces[-1])[1])
    fetched = inputs.fetch(rows)
    assert sum(piece.numel() for piece in pieces) == fetched.numel()
    for row, activation in zip(rows.itertuples(), fetched, strict=True):
        own = inputs.select(set=row.set, domain=row.domain, split=row.split)
        stored = whole[row.set][f"{row.domain}/{row.split}"]
        assert torch.equal(activation, stored[list(own["image_id"]).index(row.image_id)].float())


def test_activations_are_written_a_batch_at_a_time(tmp_path, image_sets, base_files, monkeypatch):
    pieces = []
    write = WeightsWriter.write
    monkeypatch.setattr(stages, "BATCH", 3)
    monkeypatch.setattr(WeightsWriter, "write", lambda *args: (pieces.append(len(args[3])), write(*args))[1])
    path = image_sets.manifests["swap"]
    write_activations(path, base_files["vit"], tmp_path / "x")
    assert max(pieces) == 3
    assert sum(pieces) == len(manifest.read(path))


def test_a_trunk_is_written_the_same_twice(tmp_path, image_sets, trunk_files, base_files):
    write_activations(image_sets.manifests["up"], base_files["vit"], tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == trunk_files["up"].read_bytes()


def test_activations_beyond_half_precision(tmp_path, image_sets, base_files):
    weights, _ = checkpoint.load(base_files["vit"])
    checkpoint.save(tmp_path / "base", weights | {"pos_embed": weights["pos_embed"] + 1e6}, {})
    with pytest.raises(R2MError, match="activations of drawn/test exceed half precision"):
        write_activations(image_sets.manifests["up"], tmp_path / "base", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_another_head_does_not_make_a_trunk_stale(image_sets, trunk_files):
    cosine = VIT.model_copy(update={"head": "cosine"})
    Inputs(image_sets.paths("drawn"), [trunk_files["drawn"]], cosine)


def test_select_and_set_column(image_sets):
    inputs = Inputs(image_sets.paths("drawn", "sketch", "swap"), [], CONVNET)
    assert inputs.rows["set"].unique().tolist() == ["drawn", "sketch", "swap"]
    assert len(inputs.select(label=0)) == sum(IDENTITIES.values()) + 3
    assert set(inputs.select(split=["val", "test"], generator="swap")["split"]) == {"val", "test"}
    assert inputs.select(domain=[]).empty


def test_crops_are_normalized_and_augmented_by_seed(image_sets):
    inputs = Inputs(image_sets.paths("drawn"), [], CONVNET)
    rows = inputs.rows.iloc[:4]
    mean, std = normalization(CONVNET.name)
    plain = load_images(list(rows["path"]), CONVNET.image_size)
    assert torch.equal(inputs.fetch(rows), (plain - mean) / std)
    augmented = inputs.fetch(rows, AugmentOptions(), 3)
    assert torch.equal(augmented, inputs.fetch(rows, AugmentOptions(), 3))
    assert not torch.equal(augmented, inputs.fetch(rows, AugmentOptions(), 4))


def test_unreadable_crop_is_named(tmp_path, image_sets):
    frame = manifest.read(image_sets.manifests["drawn"])
    frame["path"] = [*frame["path"][:-1], (tmp_path / "gone.png").as_posix()]
    manifest.write(frame, tmp_path / "drawn" / "manifest.parquet")
    inputs = Inputs([tmp_path / "drawn" / "manifest.parquet"], [], CONVNET)
    with pytest.raises(R2MError, match=r"gone\.png: cannot be read: No such file.*; the manifest lists it"):
        inputs.fetch(inputs.rows)
    cv2.imwrite(str(tmp_path / "gone.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(R2MError, match=r"gone\.png: too small: 8×8 pixels"):
        inputs.fetch(inputs.rows)
    batches = inputs.batches(inputs.rows, len(inputs.rows) - 1)
    assert len(next(batches)) == len(inputs.rows) - 1
    with pytest.raises(R2MError, match=r"gone\.png: too small"):
        next(batches)


def test_stale_trunks_are_refused(tmp_path, image_sets, trunk_files, base_files):
    frame = manifest.read(image_sets.manifests["drawn"])
    fewer = tmp_path / "drawn" / "manifest.parquet"
    manifest.write(frame.iloc[1:], fewer)
    trunk = trunk_files["drawn"]
    with pytest.raises(R2MError, match="was made from other images than the manifest lists"):
        Inputs([fewer], [trunk], VIT)
    manifest.write(frame.assign(split=["val", *frame["split"][1:]]), fewer)
    with pytest.raises(R2MError, match="was made from other images"):
        Inputs([fewer], [trunk], VIT)
    manifests = image_sets.paths("drawn")
    with pytest.raises(R2MError, match="was made with other options of the backbone"):
        Inputs(manifests, [trunk], VIT.model_copy(update={"trainable_blocks": 3}))
    with pytest.raises(R2MError, match="was made with other base weights"):
        Inputs(manifests, [trunk], VIT, "0" * 64)
    Inputs(manifests, [trunk], VIT, checkpoint.read_metadata(base_files["vit"])["base_hash"])


def test_missing_or_foreign_trunks_are_refused(tmp_path, image_sets, trunk_files, base_files):
    manifests = image_sets.paths("drawn", "swap")
    with pytest.raises(R2MError, match="expected one trunk file a manifest, got 1 for 2"):
        Inputs(manifests, [trunk_files["drawn"]], VIT)
    with pytest.raises(R2MError, match="was made from other images"):
        inputs_of(image_sets, {"drawn": trunk_files["swap"]}, "drawn")
    with pytest.raises(R2MError, match="absent: no such file"):
        Inputs(manifests[:1], [tmp_path / "absent"], VIT)
    (tmp_path / "broken").write_bytes(b"broken")
    with pytest.raises(R2MError, match="broken: corrupt"):
        Inputs(manifests[:1], [tmp_path / "broken"], VIT)
    with pytest.raises(R2MError, match=r"base\.safetensors: holds no activations of a trunk"):
        Inputs(manifests[:1], [base_files["vit"]], VIT)


def test_groups_and_digest(image_sets):
    frame = manifest.read(image_sets.manifests["swap"])
    keys = [key for key, _ in groups(frame)]
    assert keys == ["drawn/test", "drawn/train", "drawn/val", "sketch/test"]
    assert all(part["image_id"].is_monotonic_increasing for _, part in groups(frame))
    assert images_digest(frame) == images_digest(frame.assign(path="elsewhere.png", video="v"))
    assert images_digest(frame) != images_digest(pd.concat([frame.iloc[1:], frame.iloc[:1]]))
    assert images_digest(frame) != images_digest(frame.assign(domain="other"))


@pytest.mark.parametrize("size", [1, 3, 18, 100])
def test_a_digest_does_not_depend_on_how_much_is_digested_at_a_time(image_sets, monkeypatch, size):
    frame = manifest.read(image_sets.manifests["swap"])
    columns = (frame[name] for name in ("image_id", "domain", "split"))
    text = "\n".join("\t".join(row) for row in zip(*columns, strict=True))
    monkeypatch.setattr(module, "DIGESTED", size)
    assert images_digest(frame) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_are_those_of_one_thread_in_order(image_sets, trunk_files, threads):
    names = ("drawn", "sketch", "swap")
    for inputs in (
        inputs_of(image_sets, trunk_files, *names, threads=threads),
        Inputs(image_sets.paths(*names), [], CONVNET, threads=threads),
    ):
        rows = inputs.rows.sample(frac=1, random_state=2)
        batches = list(inputs.batches(rows, 4))
        assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)
        assert torch.equal(torch.cat(batches), inputs.fetch(rows))


def test_augmentation_has_the_same_bits_in_another_thread(image_sets):
    inputs = Inputs(image_sets.paths("drawn"), [], CONVNET)
    ahead = read_ahead(lambda seed: inputs.fetch(inputs.rows, AugmentOptions(), seed), range(4), 2)
    for seed, batch in enumerate(ahead):
        assert torch.equal(batch, inputs.fetch(inputs.rows, AugmentOptions(), seed))


def test_photographs_of_other_sizes_are_resized(tmp_path, image_sets):
    frame = manifest.read(image_sets.manifests["drawn"])
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), image)
    frame["path"] = [(tmp_path / "large.png").as_posix(), *frame["path"][1:]]
    manifest.write(frame, tmp_path / "drawn" / "manifest.parquet")
    inputs = Inputs([tmp_path / "drawn" / "manifest.parquet"], [], CONVNET)
    mean, std = normalization(CONVNET.name)
    expected = (stacked([resized(image, CONVNET.image_size)]) - mean) / std
    assert torch.equal(inputs.fetch(inputs.rows.iloc[:1]), expected)
