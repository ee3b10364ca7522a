"""Norms: the scales and shifts of the normalization layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.errors import R2MError
from r2m.train.tuning.method import Method, Wrapping
from r2m.train.tuning.options import TuningOptions

if TYPE_CHECKING:
    from r2m.models.backbone import Detector


class Options(TuningOptions):
    """Normalization layers alone."""


def wrap(detector: Detector, options: Options, seed: int) -> Wrapping:
    """Freeze all of the backbone but its normalization layers.

    GenD trains the LayerNorms of a whole encoder; convolutional networks have batch norms in their place.

    Raises:
        R2MError: the part that is trained has none.
    """
    from torch import nn

    kinds = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    norms = [module for module in detector.backbone.modules() if isinstance(module, kinds)]
    kept = {parameter for norm in norms for parameter in norm.parameters(recurse=False)}
    trained = [parameter for parameter in detector.backbone.parameters() if parameter.requires_grad]
    if kept.isdisjoint(trained):
        raise R2MError(
            "params.yaml: finetune.tuning: `norms` trains normalization layers, and the backbone has none"
        )
    for parameter in trained:
        parameter.requires_grad_(parameter in kept)
    return Wrapping()


METHOD = Method(
    title="Normalization layers",
    citation="Yermakov et al., Deepfake detection that generalizes across benchmarks (GenD),"
    " arXiv 2508.06248",
    options=Options,
    wrap=wrap,
)
