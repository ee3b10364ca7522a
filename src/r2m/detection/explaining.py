"""Relevance maps: which places of an aligned crop raise a detector's logit of being fake."""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from r2m.errors import R2MError
from r2m.models.backbone import Detector
from r2m.models.heads import fake_logit
from r2m.models.image_detector import ImageDetector, ImageLike

# Images whose gradients are in memory at a time.
BATCH = 16

Relevance = NDArray[np.float32]


def relevance_maps(
    detector: ImageDetector, images: ImageLike | Iterable[ImageLike], batch_size: int = BATCH
) -> Iterator[Relevance]:
    """Yield a map (S, S) in [0, 1] of each image, at the size of the detector's input, in their order.

    It tells which places raise the logit of "fake". The greatest value is 1, however great the logit is, and
    a map of zeros says that nothing raises it. Images are what `ImageDetector.logits` takes. Everything is
    computed in fp32, and the detector stays as it is.

    Raises:
        R2MError: a backbone that has no maps, or an image that cannot be read.
    """
    model = _twin(detector.model)
    explain = _method(model.backbone)
    for batch in detector.batches(images, batch_size):
        with torch.enable_grad():
            coarse = explain(model, batch.to(detector.device).requires_grad_())
        fine = F.interpolate(coarse[:, None], batch.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        greatest = fine.amax(dim=(1, 2), keepdim=True)
        yield from torch.where(greatest > 0, fine / greatest, 0.0).cpu().numpy()


def attention_relevance(model: Detector, images: Tensor) -> Tensor:
    """Return the relevance (B, h, w) of the patches of a vision transformer; attention is made unfused.

    Chefer, Gur and Wolf, ICCV 2021 (arXiv 2103.15679), eqs. 5 and 6: with A the attention of a block and ∇A
    the logit's gradient, Ā is the mean over heads of (∇A ⊙ A)⁺, and R ← R + Ā R from R = I on. Of R it is
    the row of the class token, or the mean over patches where the features are.

    Here products of several Ā are left out, so that R = I + Σ Ā. They are of higher order in the gradient,
    and with them a multiple of the logit would have another map.
    """
    vit: Any = model.backbone
    attentions: list[Tensor] = []
    for block in vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, attention: attentions.append(attention))
    logits = fake_logit(model.head(vit(images)))
    gradients = torch.autograd.grad(logits.sum(), attentions)
    first = vit.num_prefix_tokens
    rows = slice(1) if vit.global_pool == "token" else slice(first, None)
    relevance = sum(
        (gradient * attention.detach()).relu().mean(dim=1)[:, rows].mean(dim=1)
        for attention, gradient in zip(attentions, gradients, strict=True)
    )
    assert isinstance(relevance, Tensor)
    return relevance[:, first:].unflatten(1, vit.patch_embed.grid_size)


def grad_cam(model: Detector, images: Tensor) -> Tensor:
    """Return the relevance (B, h, w) of the places of a convolutional network's last feature map.

    Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391): channels, each times the mean gradient of the
    logit in it, are added up, and of the sum the positive part is taken.

    Raises:
        R2MError: the last features are no map of channels.
    """
    network: Any = model.backbone
    features = network.forward_features(images)
    if features.ndim != 4 or features.shape[1] != network.num_features:
        raise R2MError(_refusal(network))
    logits = fake_logit(model.head(network.forward_head(features)))
    (gradient,) = torch.autograd.grad(logits.sum(), [features])
    return (features.detach() * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu()


def _twin(model: Detector) -> Detector:
    """Return a detector of the same tensors whose modules are its own, so that they can be changed."""
    tensors = [*model.parameters(), *model.buffers()]
    return deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


def _method(backbone: nn.Module) -> Callable[[Detector, Tensor], Tensor]:
    """Return what gives the relevance (B, h, w) of images (B, 3, S, S); raises R2MError if nothing does."""
    if isinstance(backbone, VisionTransformer):
        attends = all(hasattr(getattr(block, "attn", None), "attn_drop") for block in backbone.blocks)
        if attends and backbone.attn_pool is None:
            return attention_relevance
    elif hasattr(backbone, "forward_features") and hasattr(backbone, "forward_head"):
        return grad_cam
    raise R2MError(_refusal(backbone))


def _refusal(backbone: nn.Module) -> str:
    return (
        f"no explanations of a {type(backbone).__name__}; expected a vision transformer of timm whose head"
        " reads a token or the mean of all, or a convolutional network"
    )
