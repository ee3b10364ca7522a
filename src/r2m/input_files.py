"""What can be known of the user's files before any stage runs."""

from collections.abc import Callable
from pathlib import Path

from r2m.core_params import CoreParams
from r2m.data.listing import find_media, is_video
from r2m.data.options import least_images
from r2m.datasets.check import check_dataset, check_domain, check_generator
from r2m.datasets.slices import Index, read_index
from r2m.errors import R2MError
from r2m.models import weight_files
from r2m.options import FileSource, FolderSource, PackageSource

Source = str | PackageSource


def count_images(folder: str, frames_per_video: int) -> int:
    """Return how many images are below `folder`, of which a video gives `frames_per_video`."""
    return sum(frames_per_video if is_video(file) else 1 for file in find_media(Path(folder)))


def check_inputs(
    params: CoreParams,
    count: Callable[[str, int], int] = count_images,
    read: Callable[[str], Index] = read_index,
) -> None:
    """Raise R2MError for the first missing or unusable file or folder that the params name.

    `count` counts the images below a folder, of which a video gives so many; `read` reads the index of a
    data set.
    """
    _check_folders_apart(params)
    for name, domain in params.domains.items():
        if isinstance(domain.images, FolderSource):
            key = f"domains.{name}.images.folder"
            wanted = least_images(domain.role, params.faces)
            _check_folder(key, domain.images.folder, wanted, count, domain.frames_per_video)
    for name, generator in params.generators.items():
        for key, folder in (("images", generator.images), ("reals", generator.reals)):
            if folder is not None:
                wanted = least_images(generator.role, params.faces)
                _check_folder(f"generators.{name}.{key}", folder, wanted, count, generator.frames_per_video)
    _check_datasets(params, read)
    if isinstance(params.faces.detector, FolderSource):
        for model in ("yunet.onnx", "sface.onnx"):
            path = Path(params.faces.detector.folder, model)
            if not path.is_file():
                raise R2MError(f"params.yaml: faces.detector.folder: {path}: no such file")
    if isinstance(params.backbone.weights, FileSource):
        try:
            weight_files.check(Path(params.backbone.weights.file))
        except R2MError as error:
            raise R2MError(f"params.yaml: backbone.weights.file: {error}") from error


def _check_datasets(params: CoreParams, read: Callable[[str], Index]) -> None:
    """Raise R2MError where the index of a data set lacks what domains and generators ask of it."""
    sets = params.dataset_of
    indexes: dict[str, Index] = {}
    for dataset in dict.fromkeys(sets.values()):
        options = params.datasets[dataset]
        try:
            indexes[dataset] = read(options.index)
        except R2MError as error:
            raise R2MError(f"params.yaml: datasets.{dataset}.index: {error}") from error
        has_detector = params.faces.detector != "none"
        check_dataset(f"params.yaml: datasets.{dataset}", options, indexes[dataset], has_detector)
    for name, dataset in sets.items():
        options, index, parts = params.datasets[dataset], indexes[dataset], params.parts_of(name)
        if name in params.domains:
            check_domain(f"params.yaml: domains.{name}", options, index, parts[0])
        else:
            generator = params.generators[name]
            check_generator(
                f"params.yaml: generators.{name}",
                options,
                index,
                parts,
                generator.family,
                generator.role == "train",
            )


def _check_folders_apart(params: CoreParams) -> None:
    """Raise R2MError where one image would be taken in twice: for two domains, or for a real and a fake."""
    sources: dict[str, Source] = {}
    for name, domain in params.domains.items():
        images = domain.images
        if images is not None:
            sources[f"domains.{name}.images"] = images.folder if isinstance(images, FolderSource) else images
    for name, generator in params.generators.items():
        if generator.images:
            sources[f"generators.{name}.images"] = generator.images
    taken: dict[str, Source] = {}
    for key, source in sources.items():
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


def _overlap(source: Source, other: Source) -> bool:
    """Tell whether two sources are one, or folders of which one is inside the other."""
    if not (isinstance(source, str) and isinstance(other, str)):
        return source == other
    first, second = Path(source).resolve(), Path(other).resolve()
    return first.is_relative_to(second) or second.is_relative_to(first)


def _check_folder(
    key: str, folder: str, least: int, count: Callable[[str, int], int], frames_per_video: int
) -> None:
    if not Path(folder).is_dir():
        raise R2MError(f"params.yaml: {key}: {folder}: no such folder")
    images = count(folder, frames_per_video)
    if images < least:
        raise R2MError(
            f"params.yaml: {key}: {folder}: {images} images; expected at least {least}"
            " (each split needs faces.min_images)"
        )
