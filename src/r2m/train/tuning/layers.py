"""Linear layers of a backbone, and other layers in their place."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from r2m.errors import R2MError
from r2m.models.backbone import Detector
from r2m.train.tuning.method import Wrapping


def linear_layers(detector: Detector, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Return the trained linear layers of the backbone whose names are, or end in, one of `targets`.

    Raises:
        R2MError: one of `targets` matches none; the names that exist are told.
    """
    trained = {
        name: module
        for name, module in detector.backbone.named_modules()
        if type(module) is nn.Linear and module.weight.requires_grad
    }
    chosen = set()
    for target in targets:
        matching = {name for name in trained if name == target or name.endswith(f".{target}")}
        if not matching:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in trained}))
            raise R2MError(
                f"params.yaml: finetune.tuning.targets: no linear layer that is trained is called {target!r};"
                + (f" expected some of {known}" if known else " the backbone has none")
            )
        chosen |= matching
    return {name: layer for name, layer in trained.items() if name in chosen}


def in_place_of(
    backbone: nn.Module,
    layers: Mapping[str, nn.Linear],
    weight: Callable[[str], Tensor],
    penalty: Callable[[], Tensor | None] | None = None,
) -> Wrapping:
    """Return the wrapping of `layers`, which others stand in place of; `weight(name)` is the dense weight."""

    @torch.no_grad()
    def dense() -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, layer in layers.items():
            tensors |= {f"{name}.{own}": tensor for own, tensor in layer.state_dict().items()}
            tensors[f"{name}.weight"] = weight(name)
        return tensors

    @torch.no_grad()
    def unwrap() -> None:
        for name, layer in layers.items():
            layer.weight.copy_(weight(name))
            backbone.set_submodule(name, layer)

    return Wrapping(dense, unwrap) if penalty is None else Wrapping(dense, unwrap, penalty)
