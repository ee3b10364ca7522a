"""Kinds of images by what a specialist was trained on: reals, its own fakes, those of others, unseen ones."""

from r2m.evaluate.protocols import FAMILIES, EvaluationContext
from r2m.manifest import REAL

OWN, FOREIGN, UNSEEN, TRAINED = "own", "foreign", "unseen", "trained"
IMAGE_KINDS = {
    REAL: "Real",
    OWN: "Fake, own",
    FOREIGN: "Fake, foreign",
    TRAINED: "Fake, trained",
    UNSEEN: "Fake, unseen",
}


def image_kind(generator: str, specialist: str | None, context: EvaluationContext) -> str:
    """Return the kind of a generator's images (`real` for reals) to a specialist.

    `own` were trained on by it, `foreign` by other specialists, `unseen` by none. Without a specialist, those
    of all trained generators are `trained`.
    """
    if generator == REAL:
        return REAL
    known = context.generators.get(generator)
    if known is None or known.role != "train":
        return UNSEEN
    if specialist is None:
        return TRAINED
    own = known.family if specialist in FAMILIES else generator
    return OWN if own == specialist else FOREIGN
