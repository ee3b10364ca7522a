"""What can be known of the user's files before any stage runs."""

import hashlib
import math
from pathlib import Path

from r2m import weight_files
from r2m.data.listing import find_images
from r2m.errors import R2MError
from r2m.params import FileSource, FolderSource, PackageSource, Params


def check_inputs(params: Params) -> None:
    """Raise R2MError for the first missing or unusable file or folder that the params name."""
    for name, domain in params.domains.items():
        _check_package(f"domains.{name}.images", domain.images, ("celeba", "orl"))
    _check_package("faces.detector", params.faces.detector, ("faces",))
    _check_package("backbone.weights", params.backbone.weights, ("clip",))
    shares = params.faces.split
    whole = math.ceil(params.faces.min_images / min(shares.train, shares.val, shares.test))
    for name, domain in params.domains.items():
        if isinstance(domain.images, FolderSource):
            least = whole if domain.role == "train" else params.faces.min_images
            _check_folder(f"domains.{name}.images.folder", domain.images.folder, least)
    for name, generator in params.generators.items():
        least = whole if generator.role == "train" else params.faces.min_images
        if generator.images is not None:
            _check_folder(f"generators.{name}.images", generator.images, least)
        if generator.reals is not None:
            _check_folder(f"generators.{name}.reals", generator.reals, least)
    if isinstance(params.faces.detector, FolderSource):
        for model in ("yunet.onnx", "sface.onnx"):
            _check_file("faces.detector.folder", Path(params.faces.detector.folder, model))
    if isinstance(params.backbone.weights, FileSource):
        try:
            weight_files.check(Path(params.backbone.weights.file))
        except R2MError as error:
            raise R2MError(f"params.yaml: backbone.weights.file: {error}") from error


def folders_digest(folders: list[str]) -> str:
    """Return a digest of names and sizes of the images below `folders`: it changes when images come or go."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in find_images(Path(folder)):
            whole = Path(folder, path)
            size = whole.stat().st_size if whole.exists() else None  # a dangling link is told when it is read
            digest.update(f"{Path(folder, path).as_posix()}\t{size}\n".encode())
    return digest.hexdigest()[:16]


def _check_folder(key: str, folder: str, least: int) -> None:
    path = Path(folder)
    if not path.is_dir():
        raise R2MError(f"params.yaml: {key}: {folder}: no such folder")
    count = len(find_images(path))
    if count < least:
        raise R2MError(
            f"params.yaml: {key}: {folder}: {count} images; expected at least {least}"
            " (each split needs faces.min_images)"
        )


def _check_package(key: str, source: object, fitting: tuple[str, ...]) -> None:
    if isinstance(source, PackageSource) and source.package not in fitting:
        raise R2MError(
            f"params.yaml: {key}.package: {source.package!r} holds something else; expected"
            f" {' or '.join(fitting)}"
        )


def _check_file(key: str, path: Path) -> None:
    if not path.is_file():
        raise R2MError(f"params.yaml: {key}: {path}: no such file")
