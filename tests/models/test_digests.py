import blake3
import pytest
import torch
from safetensors.torch import save_file

from r2m.models import checkpoint, digests
from r2m.models.digests import TensorDigest, content_digest, digest_of, weights_digest
from r2m.models.entries import DTYPES, Entry
from r2m.models.weights import WeightsFile, open_weights


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    tensors = {str(dtype): torch.randint(-9, 99, (5, 7), generator=generator).to(dtype) for dtype in DTYPES}
    return tensors | {"empty": torch.zeros(0, 4), "scalar": torch.tensor(3.5)}


def digest_of_file(path):
    with open_weights(path) as weights:
        return content_digest(
            weights.entries, {name: digest_of(weights.tensor(name)) for name in weights.entries}
        )


def test_pieces_give_the_digest_of_the_bytes(state):
    for tensor in state.values():
        whole = blake3.blake3(tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        digest = TensorDigest()
        for piece in tensor.reshape(-1).split(4):
            digest.update(piece)
        assert digest.hexdigest() == digest_of(tensor) == whole


def test_content_digest_does_not_depend_on_the_file(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors", metadata={"a": "b"})
    checkpoint.save(tmp_path / "b.safetensors", state, {})
    torch.save({"state_dict": state}, tmp_path / "c.pt")
    found = {digest_of_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors", "c.pt")}
    assert len(found) == 1
    assert found.pop().startswith("blake3:")


def test_content_digest_depends_on_the_content():
    entry, hashes = Entry(torch.float32, (2, 3)), {"a": "0", "b": "1"}
    entries = {"a": entry, "b": entry}
    found = {
        content_digest(entries, hashes),
        content_digest(entries, {"a": "1", "b": "0"}),
        content_digest({**entries, "a": Entry(torch.float32, (3, 2))}, hashes),
        content_digest({**entries, "a": Entry(torch.int32, (2, 3))}, hashes),
        content_digest({"a": entry, "c": entry}, {"a": "0", "c": "1"}),
    }
    assert len(found) == 5
    assert content_digest({"b": entry, "a": entry}, {"b": "1", "a": "0"}) in found
    assert content_digest(entries, hashes) == (
        "blake3:" + blake3.blake3(b'["a", "F32", [2, 3], "0"]\n["b", "F32", [2, 3], "1"]\n').hexdigest()
    )


def test_digests_of_other_tensors():
    with pytest.raises(ValueError, match="digests of"):
        content_digest({"a": Entry(torch.float32, ())}, {})


@pytest.mark.parametrize("piece_bytes", [8, 64, 4 << 20])
def test_a_file_and_its_tensors_have_one_digest(tmp_path, state, monkeypatch, piece_bytes):
    monkeypatch.setattr(digests, "PIECE_BYTES", piece_bytes)
    checkpoint.save(tmp_path / "w.safetensors", state, {})
    with open_weights(tmp_path / "w.safetensors") as weights:
        assert weights_digest(weights) == checkpoint.digest(state)


def test_known_digests_are_not_read_again(tmp_path, state, monkeypatch):
    checkpoint.save(tmp_path / "w.safetensors", state, {})
    known = {name: digest_of(tensor) for name, tensor in state.items() if name != "scalar"}
    read = []
    original = WeightsFile.read
    monkeypatch.setattr(WeightsFile, "read", lambda *args: (read.append(args[1]), original(*args))[1])
    with open_weights(tmp_path / "w.safetensors") as weights:
        assert weights_digest(weights, known) == checkpoint.digest(state)
    assert read == ["scalar"]
