"""LoRA adapters written as PEFT reads them: a folder with the factors and their settings."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from r2m.errors import R2MError
from r2m.files import discard, discard_left, temporary_path
from r2m.models.adapters import ROOT
from r2m.models.weight_files import ADAPTER_CONFIG
from r2m.models.writer import WeightsWriter

ADAPTER_WEIGHTS = "adapter_model.safetensors"


class Product(NamedTuple):
    """Factors A (r, …) and B (…, r) of one weight, in PEFT's shapes; `embedding` where rows are looked up."""

    a: Tensor
    b: Tensor
    embedding: bool


@contextmanager
def written_adapter(
    folder: Path,
    rank: int,
    products: Mapping[str, Product],
    whole: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
) -> Iterator[dict[Path, Path]]:
    """Write an adapter that is to stand in `folder`; yield its paths, each with its temporary one.

    `products` are by the names of weights, which they are added to as they are: alpha is the rank. `whole`
    are tensors that replace the base's (`modules_to_save`), by their names. The folder is made, and removed
    if nothing is in it in the end.

    Raises:
        R2MError: the folder cannot be written, or the disk is full.
    """
    tensors = {ROOT + name: tensor for name, tensor in whole.items()}
    for name, product in products.items():
        module = ROOT + name.removesuffix(".weight")
        form = ".lora_embedding_{}" if product.embedding else ".lora_{}.weight"
        tensors |= {module + form.format(side): one for side, one in (("A", product.a), ("B", product.b))}
    path = folder / ADAPTER_CONFIG
    temporary = temporary_path(path)
    is_new = not folder.exists()
    try:
        with WeightsWriter(
            folder / ADAPTER_WEIGHTS,
            {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()},
            metadata,
        ) as writer:
            for name, tensor in tensors.items():
                writer.write(name, 0, tensor.reshape(-1))
            try:
                discard_left(path)
                text = json.dumps(adapter_config(rank, products, whole), indent=2)
                temporary.write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                raise R2MError(f"{path}: cannot be written ({error.strerror})") from error
            yield {path: temporary, writer.path: writer.complete()}
    finally:
        with suppress(OSError):
            discard(temporary)
        if is_new:
            with suppress(OSError):  # the adapter is in it
                folder.rmdir()


def adapter_config(rank: int, products: Mapping[str, Product], whole: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return PEFT's settings of an adapter: of `rank`, weights of a lower one by patterns."""
    modules = {name.removesuffix(".weight"): len(product.a) for name, product in products.items()}
    # PEFT matches patterns with the ends of names: `^` makes them whole ones.
    lower = {f"^{re.escape(name)}": one for name, one in sorted(modules.items()) if one != rank}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "rank_pattern": lower,
        "alpha_pattern": lower,
        "target_modules": sorted(modules),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in whole if "." in name}) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }
