"""Entire synthesis (EFS) by a small GAN that shares nothing with the StyleGAN."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.random import Generator

from r2m.data.images import Image, resized
from r2m.forge.paste import first_shown_whole
from r2m.forge.registry import Face, Materials, forgery

if TYPE_CHECKING:
    from r2m.forge.networks.dcgan import DCGAN
    from r2m.forge.networks.faces import FaceReader

PACKAGE = "dcgan"
TRIES = 20


@dataclass(frozen=True)
class Faces:
    """The network, and what finds its faces."""

    network: "DCGAN"
    reader: "FaceReader"


def faces(materials: Materials) -> Faces:
    """Return the network and a detector."""
    from r2m.forge.networks.dcgan import DCGAN
    from r2m.forge.networks.faces import FaceReader

    return Faces(DCGAN(materials.packages[PACKAGE]), FaceReader(*materials.face_models))


@forgery("dcgan", "EFS", prepare=faces, packages=(PACKAGE,), needs_detector=True)
def dcgan(face: Face, donor: Face | None, rng: Generator, *, state: Faces) -> Image:
    """Put a random face in place of the photograph, moved so that its landmarks lie where the face's are."""
    size = face.image.shape[0]
    images = (resized(state.network.image(rng), size) for _ in range(TRIES))
    return first_shown_whole(map(state.reader.find, images), face)
