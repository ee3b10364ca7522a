"""What a StyleGAN makes: random faces (EFS), swapped (FS), reenacted (FR) and edited ones (FE).

A photograph is inverted by regression, not by optimisation: the inverted face is like it only roughly.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from r2m.data.images import Image
from r2m.forge.geometry import axes, spot_mask
from r2m.forge.paste import covers, first_shown_whole, given, inner_face, pasted, shown_whole
from r2m.forge.registry import Face, Materials, NoFake, Opacity, Strength, forgery

if TYPE_CHECKING:
    from r2m.forge.networks.faces import FaceReader
    from r2m.forge.networks.network import Array
    from r2m.forge.networks.pool import Pool
    from r2m.forge.networks.stylegan import StyleGAN

PACKAGE = "stylegan"
TRIES = 8
# How far a face that is pasted may look to another side than the photograph: difference of `faces.yaw`.
MOST_TURNED = 0.25


@dataclass(frozen=True)
class Studio:
    """The network, its pool, and what finds and describes faces."""

    network: "StyleGAN"
    pool: "Pool"
    reader: "FaceReader"

    def inverted(self, face: Face) -> "Array":
        """Return the latent (512,) of the face that looks like this one."""
        return self.pool.inverted(self.reader.describe(face))

    def face(self, latent: "Array", like: Face) -> Face:
        """Return the face of a latent; raises NoFake where it could not be pasted onto the face `like`."""
        from r2m.forge.networks.faces import yaw

        made = self.reader.find(self.network.image(latent))
        if made is None:
            raise NoFake("no face in the generated image")
        if abs(yaw(made.landmarks) - yaw(like.landmarks)) > MOST_TURNED:
            raise NoFake("the generated face looks to another side")
        return made


def studio(materials: Materials) -> Studio:
    """Return what the forgeries of this module share."""
    from r2m.forge.networks import pool
    from r2m.forge.networks.faces import FaceReader
    from r2m.forge.networks.stylegan import StyleGAN

    assert materials.pool is not None
    faces = pool.read(materials.pool)
    network = StyleGAN(materials.packages[PACKAGE], faces.read_out)
    return Studio(network, faces, FaceReader(*materials.face_models))


@forgery("gan", "EFS", prepare=studio, packages=(PACKAGE,), needs_pool=True)
def gan(face: Face, donor: Face | None, rng: Generator, *, state: Studio) -> Image:
    """Put a random face in place of the photograph, moved so that its landmarks lie where the face's are."""
    images = (state.network.image(state.network.latent(rng)) for _ in range(TRIES))
    return first_shown_whole(map(state.reader.find, images), face)


@forgery("gan_swap", "FS", needs_donor=True, prepare=studio, packages=(PACKAGE,), needs_pool=True)
def gan_swap(
    face: Face, donor: Face | None, rng: Generator, *, state: Studio, strength: Opacity = 1.0
) -> Image:
    """Paste the inverted face of the donor; `strength` is its opacity at most."""
    other = state.face(state.inverted(given(donor)), face)
    opacity = np.float32(min(1.0, strength * rng.uniform(0.8, 1.0)))
    return pasted(other, face, opacity * inner_face(face, rng, 0.9, 1.1))


@forgery("gan_smile", "FR", prepare=studio, packages=(PACKAGE,), needs_pool=True)
def gan_smile(
    face: Face, donor: Face | None, rng: Generator, *, state: Studio, strength: Strength = 1.0
) -> Image:
    """Paste the mouth of the inverted face, wider or narrower; `strength` is how far, of the pool's range."""
    moved = moved_along("smiles", strength, face, rng, state)
    _, mouth, unit = axes(face.landmarks)
    radii = (rng.uniform(0.55, 0.7) * unit, rng.uniform(0.36, 0.46) * unit)
    return pasted(moved, face, spot_mask([mouth], radii, face.image.shape[0], rng.uniform(2.0, 4.0)))


@forgery("gan_yaw", "FR", prepare=studio, packages=(PACKAGE,), needs_pool=True)
def gan_yaw(
    face: Face, donor: Face | None, rng: Generator, *, state: Studio, strength: Strength = 0.25
) -> Image:
    """Paste the inverted face turned to the side; `strength` is how far, of the pool's range."""
    return pasted(moved_along("yaws", strength, face, rng, state), face, inner_face(face, rng))


def moved_along(measure: str, most: float, face: Face, rng: Generator, state: Studio) -> Face:
    """Return the inverted face, its latent moved either way along the direction of a measure."""
    step = most * rng.uniform(0.6, 1.0) * rng.choice([-1.0, 1.0])
    return state.face(state.inverted(face) + np.float32(step) * state.pool.direction(measure), face)


@forgery("gan_edit", "FE", prepare=studio, packages=(PACKAGE,), needs_pool=True)
def gan_edit(
    face: Face, donor: Face | None, rng: Generator, *, state: Studio, strength: Strength = 1.0
) -> Image:
    """Show the inverted face smiling or with other hair: in half of the cases whole, else face and hair."""
    size = face.image.shape[0]
    step = strength * rng.uniform(0.6, 1.0) * rng.choice([-1.0, 1.0])
    edit = np.float32(step) * state.pool.direction(str(rng.choice(["smiles", "hair"])))
    edited = state.face(state.inverted(face) + edit, face)
    if rng.random() < 0.5 and covers(edited, face.landmarks, size):
        return shown_whole(edited, face)
    return pasted(edited, face, inner_face(face, rng, 1.35, 1.6))
