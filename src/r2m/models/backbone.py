"""The detector: a timm backbone, split into a frozen trunk and a trainable top, and a head."""

import difflib
import re
from collections.abc import Mapping
from typing import cast

import timm
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from r2m.errors import R2MError
from r2m.models.heads import HEAD, fake_logit, head_type
from r2m.models.options import BackboneOptions


class Detector(nn.Module):
    """Backbone and head (`r2m.models.heads`); the logit is that of "fake".

    The head has one output, or one per class with Real first: then the logit is that of all fake classes
    together, log Σ exp of theirs minus Real's.

    With `trainable_blocks: N` the input of `forward` is the trunk's activations `(B, tokens, D)`, otherwise
    normalized images `(B, 3, H, W)`.
    """

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.backbone = create_backbone(options)
        self.width = _width(self.backbone)
        self.head_type = options.head
        self.head: nn.Module = head_type(options.head)(self.width, 1)
        self.first_trainable: int | None = None
        if options.trainable_blocks != "all":
            self.first_trainable = _first_trainable(self.backbone, options)
            self.backbone.requires_grad_(False)
            for module in (*self._vit.blocks[self.first_trainable :], self._vit.norm):
                module.requires_grad_(True)

    @property
    def _vit(self) -> VisionTransformer:
        """The backbone where it has a trunk."""
        return cast(VisionTransformer, self.backbone)

    def trunk(self, images: Tensor) -> Tensor:
        """Return the activations `(B, tokens, D)` below the first trainable block."""
        vit = self._vit
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        return vit.blocks[: self.first_trainable](x)

    def features(self, x: Tensor) -> Tensor:
        """Return pooled features `(B, D)` of activations (with a trunk) or of images (without)."""
        if self.first_trainable is None:
            return self.backbone(x)
        vit = self._vit
        *lower, last = vit.blocks[self.first_trainable :]
        for block in lower:
            is_recomputed = vit.grad_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if is_recomputed else block(x)
        x = _class_token_block(cast(Block, last), x) if _reads_class_token_only(vit, last) else last(x)
        return vit.forward_head(vit.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B,)`."""
        return fake_logit(self.class_logits(x))

    def class_logits(self, x: Tensor) -> Tensor:
        """Return the head's outputs `(B, 1)`, or `(B, classes)`."""
        return self.head(self.features(x))

    def set_gradient_checkpointing(self) -> None:
        """Compute activations of blocks again for the gradients rather than keep them.

        Raises:
            R2MError: the backbone cannot.
        """
        try:
            cast(VisionTransformer, self.backbone).set_grad_checkpointing(True)
        except (AttributeError, AssertionError) as error:
            raise R2MError(
                f"finetune.gradient_checkpointing: {type(self.backbone).__name__} has none; expected false"
            ) from error

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the backbone's tensors that training can change, and the head's as `head.*`."""
        prefixes = None
        if self.first_trainable is not None:
            depth = len(self._vit.blocks)
            prefixes = (*(f"blocks.{i}." for i in range(self.first_trainable, depth)), "norm.")
        state = {
            name: tensor.detach().cpu()
            for name, tensor in self.backbone.state_dict().items()
            if prefixes is None or name.startswith(prefixes)
        }
        return state | {HEAD + name: tensor.detach().cpu() for name, tensor in self.head.state_dict().items()}

    def load_tensors(
        self, tensors: Mapping[str, Tensor], label: str = "the checkpoint's tensors", complete: bool = False
    ) -> None:
        """Load backbone tensors, and `head.*` where given, over what is there.

        A head with another number of classes replaces the one that is there. `label` names the tensors in an
        error.

        Raises:
            R2MError: a name that the model does not have, or another shape; with `complete` also a tensor of
                the backbone that is missing, which would stay as it was drawn.
        """
        backbone = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}
        head = {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
        check_fit(backbone, self.backbone, label, complete)
        weight = cast(Tensor, self.head.weight)
        outputs = len(head.get("weight", weight))
        if outputs != len(weight):
            self.head = head_type(self.head_type)(self.width, outputs).to(weight.device)
        check_fit(head, self.head, "the head's tensors", complete="weight" in head, to="head")
        self.backbone.load_state_dict(backbone, strict=False)
        self.head.load_state_dict(head, strict=False)


def create_backbone(options: BackboneOptions, image_size: int | None = None) -> nn.Module:
    """Return the timm model without classifier and without weights, at `image_size` or the options' size.

    Of a vision transformer the lowest `blocks` of the options are there, and the norm behind the last.

    Raises:
        R2MError: timm has no such model, or the model cannot take the size or has no such blocks.
    """
    model = _whole_backbone(options, image_size)
    if options.blocks != "all":
        vit = _with_blocks(model, options, "blocks", options.blocks)
        vit.prune_intermediate_layers([options.blocks - 1], prune_norm=False, prune_head=False)
    return model


def _whole_backbone(options: BackboneOptions, image_size: int | None) -> nn.Module:
    size = image_size or options.image_size
    if not timm.is_model(options.name):
        near = difflib.get_close_matches(options.name, timm.list_models(), n=3)
        hint = f"; did you mean one of {', '.join(near)}?" if near else ""
        raise R2MError(f"params.yaml: backbone.name: timm has no model {options.name!r}{hint}")
    try:
        return timm.create_model(options.name, pretrained=False, num_classes=0, img_size=size)
    except TypeError:  # convolutional networks take any size and no img_size
        return timm.create_model(options.name, pretrained=False, num_classes=0)
    except (AssertionError, ValueError) as error:
        raise R2MError(
            f"params.yaml: backbone.image_size: {size} does not fit {options.name}: {error}"
        ) from error


def resized_base(weights: Mapping[str, Tensor], options: BackboneOptions) -> dict[str, Tensor]:
    """Return `weights` as the complete state of the backbone at the options' image size.

    Weights made for the model's native size have their position embedding resampled. A classifier in the file
    is left out, and so are blocks above those that the options keep.

    Raises:
        R2MError: the first keys or shapes that do not fit.
    """
    model = create_backbone(options)
    state = model.state_dict()
    unused = ("head.", "fc.", "classifier.")
    weights = {
        name: tensor
        for name, tensor in weights.items()
        if name in state or not (name.startswith(unused) or _is_above(name, options))
    }
    position = weights.get("pos_embed")
    if (
        position is not None
        and "pos_embed" in state
        and position.shape != state["pos_embed"].shape
        and isinstance(model, VisionTransformer)
    ):
        native = timm.get_pretrained_cfg(options.name)
        vit = cast(VisionTransformer, create_backbone(options, native.input_size[-1] if native else None))
        check_fit(weights, vit, f"weights for {options.name}", complete=True)
        vit.load_state_dict(dict(weights))
        vit.set_input_size(img_size=(options.image_size, options.image_size))
        model = vit
    else:
        check_fit(weights, model, f"weights for {options.name}", complete=True)
        model.load_state_dict(dict(weights))
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def check_fit(
    weights: Mapping[str, Tensor], model: nn.Module, label: str, complete: bool = False, to: str = "backbone"
) -> None:
    """Raise R2MError naming up to three keys of `weights` that do not fit `model`, or that it lacks."""
    state = model.state_dict()
    problems = [f"unexpected {name} {tuple(t.shape)}" for name, t in weights.items() if name not in state]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(state[name].shape)}"
        for name, tensor in weights.items()
        if name in state and tensor.shape != state[name].shape
    ]
    if complete:
        problems += [f"missing {name} {tuple(state[name].shape)}" for name in state if name not in weights]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise R2MError(f"{label} do not fit the {to}: {'; '.join(problems[:3])}{more}")


def _width(backbone: nn.Module) -> int:
    """Return the size of the features that a timm model without classifier returns."""
    # Some convolutional networks widen their features after pooling.
    return cast(int, getattr(backbone, "head_hidden_size", backbone.num_features))


def _first_trainable(model: nn.Module, options: BackboneOptions) -> int:
    assert options.trainable_blocks != "all"
    vit = _with_blocks(model, options, "trainable_blocks", options.trainable_blocks)
    return len(vit.blocks) - options.trainable_blocks


def _with_blocks(model: nn.Module, options: BackboneOptions, key: str, count: int) -> VisionTransformer:
    """Return the model; raises R2MError unless it is a vision transformer with so many blocks."""
    if not isinstance(model, VisionTransformer):
        raise R2MError(
            f"params.yaml: backbone.{key}: a number needs a vision transformer of timm, and"
            f" {options.name} is a {type(model).__name__}; expected `all`"
        )
    if count > len(model.blocks):
        kept = "that are kept " if options.blocks != "all" and key != "blocks" else ""
        raise R2MError(
            f"params.yaml: backbone.{key}: {count} exceeds the {len(model.blocks)} blocks {kept}of"
            f" {options.name}"
        )
    return model


def _is_above(name: str, options: BackboneOptions) -> bool:
    """Whether a tensor is of a block above those that are kept."""
    block = re.match(r"blocks\.(\d+)\.", name)
    return options.blocks != "all" and block is not None and int(block[1]) >= options.blocks


def _reads_class_token_only(vit: VisionTransformer, last: nn.Module) -> bool:
    """Whether only the class token of the last block's output is read, and the block is a plain one."""
    return (
        vit.global_pool == "token"
        and vit.num_prefix_tokens == 1
        and type(last) is Block
        and type(last.attn) is Attention
        and getattr(last.attn, "gate", None) is None
        and isinstance(vit.norm, nn.LayerNorm)
    )


def _class_token_block(block: Block, x: Tensor) -> Tensor:
    """Return the class token `(B, 1, D)` of `block(x)`, at about a sixth of the whole block's cost."""
    attention = cast(Attention, block.attn)
    normed = block.norm1(x)
    width = attention.num_heads * attention.head_dim
    if type(attention.qkv) is nn.Linear:
        weight, bias = attention.qkv.weight, attention.qkv.bias
        q = F.linear(normed[:, :1], weight[:width], None if bias is None else bias[:width])
        kv = F.linear(normed, weight[width:], None if bias is None else bias[width:])
    else:  # what else stands there, as while it is tuned, may compute more than its weight and bias say
        whole = attention.qkv(normed)
        q, kv = whole[:, :1, :width], whole[..., width:]
    batch, tokens, _ = x.shape
    q = q.reshape(batch, 1, attention.num_heads, attention.head_dim).transpose(1, 2)
    k, v = (
        kv.reshape(batch, tokens, 2, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    )
    q, k = attention.q_norm(q), attention.k_norm(k)
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, 1, width)
    mixed = attention.proj_drop(attention.proj(attention.norm(attended)))
    x = x[:, :1] + block.drop_path1(block.ls1(mixed))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
