"""The workflow's stage of fakes."""

from collections.abc import Sequence
from pathlib import Path

from r2m.data.faces import Settings
from r2m.data.options import FacesOptions
from r2m.forge.generate import build_generator
from r2m.forge.options import GeneratorOptions


def forge(
    *,
    generator: str,
    options: GeneratorOptions,
    faces: Sequence[Path],
    trained: Sequence[Path],
    faces_options: FacesOptions,
    image_size: int,
    seed: int,
    detector: Path | None,
    embedder: Path | None,
    out: Path,
    threads: int,
) -> None:
    """Forge the reals of all domains, or align and encode a folder of fakes; raises like `build_generator`.

    `faces` are folders of domains, `trained` manifests of folders of fakes that are trained on.
    """
    settings = Settings(faces_options, image_size, seed, detector, embedder, threads)
    build_generator(generator, options, faces, settings, out, trained)
