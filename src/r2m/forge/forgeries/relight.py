"""Face editing (FE) by style transfer: the face in the light and colours of another one."""

from numpy.random import Generator

from r2m.data.images import Image
from r2m.forge.geometry import blend, face_mask
from r2m.forge.networks.styletransfer import StyleTransfer
from r2m.forge.paste import given, match_spectrum
from r2m.forge.registry import Face, Materials, Strength, forgery

PACKAGE = "styletransfer"


def networks(materials: Materials) -> StyleTransfer:
    """Return the networks of style transfer."""
    return StyleTransfer(materials.packages[PACKAGE])


@forgery("relight", "FE", needs_donor=True, prepare=networks, packages=(PACKAGE,))
def relight(
    face: Face,
    donor: Face | None,
    rng: Generator,
    *,
    state: StyleTransfer,
    strength: Strength = 1.0,
) -> Image:
    """Draw the face in the style of the donor's photograph; `strength` is the drawn share at most."""
    image = face.image
    mask = face_mask(face.landmarks, image.shape[0], rng.uniform(3.0, 6.0), 1.15, 1.4)
    drawn = match_spectrum(state(image, given(donor).image), image, mask)
    return blend(image, drawn, mask * min(1.0, strength * rng.uniform(0.45, 0.65)))
