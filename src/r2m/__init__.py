"""R²M: detectors of forged faces, one per generator, merged in weight space without further training.

A detector is a file. It knows its backbone, its input and its labels:

    import r2m

    detector = r2m.load("results/merged/r2m_task/seed0/model.safetensors")
    detector("photo.jpg").decision                      # of the face that is found: real, unsure or fake
    detector.probabilities("face.png")                  # of being fake, of aligned face crops
    detector.is_fake("face.png")                        # whether at least detector.config.threshold
    table = r2m.score("crops/", detector)               # path, logit, probability, label, error
    found = r2m.detect(["photo.jpg", "clip.mp4"], detector)   # faces, probability and decision of each file
    merged = r2m.merge_models("ties", base, {"gan": gan, "edit": edit})   # on mappings of tensors

What there is:

    load          a detector from its file
    score         a folder of face crops, or a list of them, with a detector
    detect        photographs and videos: their faces are found, aligned and scored
    merge_models  merge weights by any method (files of any size: `r2m merge` on the command line)
    methods       the merging methods: name → title, citation and options
    inspect       what is in weights files: shapes, norms, cosines, provenance
    finetune      train a specialist from the base, as the workflow does

Mistakes raise `R2MError`, whose text says what was expected.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from r2m.errors import R2MError
from r2m.version import __version__

if TYPE_CHECKING:
    from r2m.detection.detecting import detect_all as detect
    from r2m.detection.media_detector import load
    from r2m.merge.api import merge as merge_models
    from r2m.merge.inspection import inspect
    from r2m.merge.registry import methods
    from r2m.models.image_detector import score
    from r2m.train.stages import finetune

__all__ = [
    "R2MError",
    "__version__",
    "detect",
    "finetune",
    "inspect",
    "load",
    "merge_models",
    "methods",
    "score",
]

# Imported when they are used, since torch takes seconds. `r2m.merge` is the package, hence `merge_models`.
_HOMES = {
    "detect": "r2m.detection.detecting:detect_all",
    "finetune": "r2m.train.stages:finetune",
    "inspect": "r2m.merge.inspection:inspect",
    "load": "r2m.detection.media_detector:load",
    "merge_models": "r2m.merge.api:merge",
    "methods": "r2m.merge.registry:methods",
    "score": "r2m.models.image_detector:score",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, function = _HOMES[name].partition(":")
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
