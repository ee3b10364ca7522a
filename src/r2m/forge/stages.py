"""The workflow's stages of a GAN's pool, of fakes, and of what gives fakes away."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from r2m import manifest
from r2m.data.faces import Settings
from r2m.data.options import FacesOptions
from r2m.files import atomic_path
from r2m.forge.cues import cue_table
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
    packages: Mapping[str, Path],
    pool: Path | None,
    out: Path,
    threads: int,
) -> None:
    """Forge the reals of all domains, or align and encode a folder of fakes; raises like `build_generator`.

    `faces` are folders of domains, `trained` manifests of folders of fakes that are trained on, `packages`
    folders of networks and `pool` the pool that a forgery asks for.
    """
    settings = Settings(faces_options, image_size, seed, detector, embedder, threads)
    with threadpool_limits(1):  # sums, and so fakes, would depend on the number of threads
        build_generator(generator, options, faces, settings, out, trained, packages, pool)


def pool(*, network: Path, detector: Path, embedder: Path, seed: int, out: Path, threads: int) -> None:
    """Fit the read-out of the StyleGAN in the folder `network`, and make its pool of faces."""
    from r2m.forge.networks import pool as pools

    with threadpool_limits(1):
        pools.write(out, pools.build(network, detector, embedder, seed, threads))


def cues(*, manifests: Sequence[Path], seed: int, out: Path) -> None:
    """Write how well cheap cues tell the fakes of each generator in each domain from the reals, as CSV.

    Raises:
        R2MError: a file that is not a manifest, or an image that is gone or damaged.
    """
    table = cue_table(manifest.concat(manifest.read(path) for path in manifests), seed)
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
