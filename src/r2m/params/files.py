"""What can be known of the user's files before any stage runs."""

import math
from collections.abc import Callable
from pathlib import Path

from r2m.data.listing import find_images
from r2m.errors import R2MError
from r2m.models import weight_files
from r2m.options import FileSource, FolderSource, PackageSource
from r2m.params import Params


def count_images(folder: str) -> int:
    """Return how many images are below `folder`."""
    return len(find_images(Path(folder)))


def check_inputs(params: Params, count: Callable[[str], int] = count_images) -> None:
    """Raise R2MError for the first missing or unusable file or folder that the params name.

    `count` counts the images below a folder.
    """
    for name, domain in params.domains.items():
        _check_package(f"domains.{name}.images", domain.images, ("celeba", "orl"))
    _check_package("faces.detector", params.faces.detector, ("faces",))
    _check_package("backbone.weights", params.backbone.weights, ("clip",))
    _check_folders_apart(params)
    shares = params.faces.split
    whole = math.ceil(params.faces.min_images / min(shares.train, shares.val, shares.test))
    for name, domain in params.domains.items():
        if isinstance(domain.images, FolderSource):
            least = whole if domain.role == "train" else params.faces.min_images
            _check_folder(f"domains.{name}.images.folder", domain.images.folder, least, count)
    for name, generator in params.generators.items():
        least = whole if generator.role == "train" else params.faces.min_images
        if generator.images is not None:
            _check_folder(f"generators.{name}.images", generator.images, least, count)
        if generator.reals is not None:
            _check_folder(f"generators.{name}.reals", generator.reals, least, count)
    if isinstance(params.faces.detector, FolderSource):
        for model in ("yunet.onnx", "sface.onnx"):
            _check_file("faces.detector.folder", Path(params.faces.detector.folder, model))
    if isinstance(params.backbone.weights, FileSource):
        try:
            weight_files.check(Path(params.backbone.weights.file))
        except R2MError as error:
            raise R2MError(f"params.yaml: backbone.weights.file: {error}") from error


def _check_folders_apart(params: Params) -> None:
    """Raise R2MError where one image would be taken in twice: for two domains, or for a real and a fake."""
    domains = {
        f"domains.{name}.images": one.images.folder if isinstance(one.images, FolderSource) else one.images
        for name, one in params.domains.items()
    }
    fakes = {f"generators.{name}.images": one.images for name, one in params.generators.items() if one.images}
    taken: dict[str, str | PackageSource] = {}
    for key, source in (domains | fakes).items():
        for other, earlier in taken.items():
            if _overlap(source, earlier):
                where = source if isinstance(source, str) else source.package
                raise R2MError(
                    f"params.yaml: {key}: {where}: the same images as {other}, or a folder inside the other;"
                    " expected images of its own"
                )
        taken[key] = source
    for name, generator in params.generators.items():
        if generator.reals and Path(generator.reals).resolve() == Path(generator.images or "").resolve():
            raise R2MError(
                f"params.yaml: generators.{name}.reals: {generator.reals}: the same folder as `images`;"
                " expected one of reals"
            )


def _overlap(one: str | PackageSource, other: str | PackageSource) -> bool:
    if not (isinstance(one, str) and isinstance(other, str)):
        return one == other
    first, second = Path(one).resolve(), Path(other).resolve()
    return first == second or first in second.parents or second in first.parents


def _check_folder(key: str, folder: str, least: int, count: Callable[[str], int]) -> None:
    path = Path(folder)
    if not path.is_dir():
        raise R2MError(f"params.yaml: {key}: {folder}: no such folder")
    images = count(folder)
    if images < least:
        raise R2MError(
            f"params.yaml: {key}: {folder}: {images} images; expected at least {least}"
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
