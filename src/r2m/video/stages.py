"""The workflow's stage of reals: faces of a folder of photographs and videos."""

from pathlib import Path

from r2m.data.faces import Settings, build_domain
from r2m.data.options import DomainOptions, FacesOptions
from r2m.video.folder import read_videos


def faces(
    *,
    domain: str,
    images: Path,
    options: DomainOptions,
    faces: FacesOptions,
    image_size: int,
    seed: int,
    detector: Path | None,
    embedder: Path | None,
    out: Path,
    threads: int,
) -> None:
    """Find, align, group, split and encode the faces of one domain; raises like `build_domain`."""
    settings = Settings(faces, image_size, seed, detector, embedder, threads)
    build_domain(
        *(domain, images, options.role, options.identity, options.limit, settings, out, options.frames),
        frames_per_video=options.frames_per_video,
        read_videos=read_videos,
    )
