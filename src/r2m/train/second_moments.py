"""Second moments that some merging methods need of training data: of gradients, and of layers' inputs."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import pandas as pd
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from r2m.errors import R2MError
from r2m.models.backbone import Detector
from r2m.models.precision import autocast, outputs
from r2m.seeding import rng
from r2m.session import Session
from r2m.train.rows import rows_of
from r2m.trunk.inputs import Inputs

logger = logging.getLogger(__name__)

BATCH = 32


def draw(inputs: Inputs, generators: Sequence[str], images: int, seed: int, name: str) -> pd.DataFrame:
    """Return about `images` rows of the training split: half fakes of `generators`, half their reals.

    Drawn without replacement, and as many as there are pairs of where those are fewer.

    Raises:
        R2MError: no images in the training split.
    """
    fakes, reals = rows_of(inputs, generators, "train")
    count = min((images + 1) // 2, len(fakes), len(reals))
    random = rng(seed, "statistics", name)
    drawn = [frame.iloc[random.permutation(len(frame))[:count]] for frame in (fakes, reals)]
    return pd.concat(drawn, ignore_index=True)


def fisher(session: Session, rows: pd.DataFrame) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of every trained parameter of the backbone, in its shape.

    It is the mean over images of E_y[(∂ log p(y))²], y drawn from the model's own prediction p (Matena and
    Raffel, "Merging models with Fisher-weighted averaging", 2022). For one logit z, that is p(1 − p) (∂z)².
    """
    detector = session.detector.eval()
    trained = {
        name: parameter for name, parameter in detector.backbone.named_parameters() if parameter.requires_grad
    }
    sums = {name: torch.zeros_like(parameter) for name, parameter in trained.items()}
    for image in session.inputs.batches(rows, 1):
        with autocast(session.device, session.precision):
            logit = detector(image.to(session.device)).float().squeeze()
        weight = (logit.sigmoid() * (-logit).sigmoid()).item()
        gradients = torch.autograd.grad(logit, list(trained.values()), allow_unused=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient, value=weight)
    return {name: total.div_(len(rows)).cpu() for name, total in sums.items()}


def regmean(session: Session, rows: pd.DataFrame) -> dict[str, Tensor]:
    """Return XᵀX / n (in, in) of every trained linear layer of the backbone, under the name of its weight.

    The n rows of X are the layer's inputs at all tokens of all images, as in Jin et al., "Dataless knowledge
    fusion by merging weights of language models", 2023.
    """
    detector = session.detector.eval()
    layers = {
        f"{name}.weight": layer
        for name, layer in detector.backbone.named_modules()
        if isinstance(layer, nn.Linear) and layer.weight.requires_grad
    }
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)

    def accumulate(name: str, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].flatten(0, -2).float()
        with torch.autocast(session.device.type, enabled=False):
            gram = (x.T @ x).to("cpu", torch.float64)
        sums[name] = sums[name].add_(gram) if name in sums else gram
        counts[name] += len(x)

    hooks = [layer.register_forward_pre_hook(partial(accumulate, name)) for name, layer in layers.items()]
    try:
        batches = session.inputs.batches(rows, BATCH)
        run = partial(_run_trained_layers, detector)
        for _ in outputs(run, batches, session.device, session.precision):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    for name in sorted(set(layers) - set(sums)):
        logger.warning("%s: its layer is not called as a module, so there is no Gram of its inputs", name)
    return {name: (total / counts[name]).float() for name, total in sums.items()}


def _run_trained_layers(detector: Detector, x: Tensor) -> Tensor:
    """Run the trained layers at all tokens; `Detector.features` skips those that the logit does not need."""
    if detector.first_trainable is None:
        return detector.backbone(x)
    return cast(VisionTransformer, detector.backbone).blocks[detector.first_trainable :](x)


# Named like the merging methods that take them.
STATISTICS: dict[str, Callable[[Session, pd.DataFrame], dict[str, Tensor]]] = {
    "fisher": fisher,
    "regmean": regmean,
    "esm": regmean,
}


def compute(method: str, session: Session, rows: pd.DataFrame) -> dict[str, Tensor]:
    """Return the statistics that one of STATISTICS takes, on `rows`, in float32 on the CPU.

    Raises:
        R2MError: an unknown method, or a value that is not finite.
    """
    if method not in STATISTICS:
        raise R2MError(f"{method!r} takes no statistics; expected {' or '.join(STATISTICS)}")
    statistics = STATISTICS[method](session, rows)
    for name, tensor in statistics.items():
        if not torch.isfinite(tensor).all():
            raise R2MError(f"{name}: the {method} statistics are not finite; expected a specialist that is")
    return statistics
