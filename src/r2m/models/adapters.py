"""LoRA adapters as PEFT saves them, read as the fine-tuned model that they make of a base."""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.models.entries import Entry, Source
from r2m.models.names import correspondence
from r2m.models.weight_files import ADAPTER_CONFIG
from r2m.models.weights import WeightsFile

logger = logging.getLogger(__name__)

WAY_OUT = "merge it into its model by PEFT's merge_and_unload() and save that"
ROOT = "base_model.model."
# Rows of a product are computed by so many entries, at fixed places: pieces of any size give the same values.
TILE_ENTRIES = 2**16

# Parameters of LoRA and of the adapters that are no LoRA, as PEFT, LyCORIS and kohya's scripts name them.
_ADAPTER = re.compile(r"(^|\.)(lora_|hada_w|lokr_w|ia3_l|oft_r|boft_R|vera_lambda|base_model\.model\.)")
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.(?!weight$|bias$)[^.]+)?(\.weight)?"
)
# What changes the product B A, or the base beside it.
_UNSUPPORTED = (
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
)
_CHANGING_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


@dataclass
class _Product:
    """A target of the adapter: the names of its two factors A (r, …) and B (…, r)."""

    embedding: bool
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A tensor W of the base plus `scale` · B A, in float32; `transposed`: plus its transpose."""

    entry: Entry
    base: Source
    left: Source
    right: Source
    scale: float
    transposed: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the base and of the factors."""
        return (*self.base.paths, *self.left.paths, *self.right.paths)

    def fill(self, view: Tensor, start: int) -> None:
        """Compute the flat elements from `start` on into `view`."""
        piece = torch.empty(len(view), dtype=self.base.entry.dtype)
        self.base.fill(piece, start)
        view.copy_(piece)
        left, right = _factors(self)
        columns = right.shape[1]
        rows = max(1, TILE_ENTRIES // columns)
        stop = start + len(view)
        for row in range(start // columns // rows * rows, -(-stop // columns), rows):
            tile = (left[row : row + rows] @ right).mul_(self.scale).reshape(-1)
            first = row * columns
            begin, end = max(first, start), min(first + len(tile), stop)
            view[begin - start : end - start].add_(tile[begin - first : end - first])


@lru_cache(maxsize=32)
def _factors(adapted: Adapted) -> tuple[Tensor, Tensor]:
    """Return the matrices (rows, r) and (r, columns) of float32 whose product is added."""
    a, b = (_read_whole(source).float() for source in (adapted.right, adapted.left))
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a.T.contiguous(), b.T.contiguous()) if adapted.transposed else (b, a)


def is_adapter(names: Iterable[str]) -> bool:
    """Whether tensors of these names are an adapter's."""
    return any(_ADAPTER.search(name) for name in names)


def require_no_adapter(weights: WeightsFile) -> WeightsFile:
    """Return `weights`; raise R2MError if they are an adapter's, and not those of a whole model."""
    if is_adapter(weights.entries):
        raise _refused(weights, "expected the weights of a whole model as the base")
    return weights


def adapted(adapter: WeightsFile, base: WeightsFile) -> WeightsFile:
    """Return the model that a LoRA `adapter` makes of the `base`: W + scale · B A where it has factors.

    Scale is alpha / r, or alpha / √r (`use_rslora`); modules saved whole and biases are taken as they are,
    all else from the base. Sums are in float32, whatever the base's dtype; nothing is computed before it is
    read. adapter_config.json is read beside the adapter.

    Raises:
        R2MError: no config, another adapter than LoRA or a variant of it that is no plain product, or tensors
            that do not fit the base.
    """
    config = _config(adapter)
    products, plain = _sorted_out(adapter)
    targets = [f"{module}.weight" for module in products]
    try:
        called = correspondence(base.entries, [*targets, *plain])
    except ValueError as error:
        raise _refused(adapter, str(error)) from error
    sources = {name: base.source(name) for name in base.entries}
    sources |= {called[target]: adapter.source(name) for target, name in plain.items()}
    own_names = {**{name: name for name in sources}, **base.own_names}
    for module, product in products.items():
        name = called[f"{module}.weight"]
        sources[name] = _adapted(module, name, product, adapter, base, config)
    note = f"a LoRA adapter, applied to {len(products)} of the base's tensors"
    note += f"; {len(plain)} are its own" if plain else ""
    logger.info("%s: %s", adapter.path, note)
    return adapter.replaced(sources, own_names, [*adapter.notes, note], computed=True)


def _config(adapter: WeightsFile) -> dict[str, Any]:
    """Return the adapter's settings, checked."""
    path = adapter.path.with_name(ADAPTER_CONFIG)
    if not path.is_file():
        raise _refused(
            adapter, f"without {ADAPTER_CONFIG} beside it, so that its scale is unknown; add that file"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise R2MError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise R2MError(f"{path}: expected a mapping of settings")
    if config.get("use_dora"):
        raise _refused(adapter, f"{path.name} says use_dora: DoRA scales the rows of W + B A, and is no sum")
    if config.get("peft_type") != "LORA":
        raise _refused(adapter, f"{path.name} says {config.get('peft_type')!r}; expected peft_type 'LORA'")
    for key in _UNSUPPORTED:
        if config.get(key):
            raise _refused(adapter, f"{path.name} says {key}, which r2m cannot apply")
    initial = config.get("init_lora_weights")
    if isinstance(initial, str) and initial.lower().startswith(_CHANGING_BASE):
        raise _refused(adapter, f"{path.name} says init_lora_weights {initial!r}, which changes the base too")
    for key, number in {
        "lora_alpha": config.get("lora_alpha"),
        **(config.get("alpha_pattern") or {}),
    }.items():
        if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
            raise R2MError(f"{path}: {key}: expected a number, got {number!r}")
    return config


def _sorted_out(adapter: WeightsFile) -> tuple[dict[str, _Product], dict[str, str]]:
    """Return module → its factors, and tensor of the model → what the file calls one that is stored whole."""
    products: dict[str, _Product] = {}
    plain: dict[str, str] = {}
    for name in adapter.entries:
        short = name.removeprefix(ROOT)
        match = _FACTOR.fullmatch(short)
        if match is not None:
            product = products.setdefault(match["module"], _Product(match["embedding"] is not None))
            if match["side"] in product.names:
                raise _refused(adapter, f"{name!r} and {product.names[match['side']]!r} are two adapters")
            product.names[match["side"]] = name
        elif ".original_module." not in short:
            target = re.sub(r"\.modules_to_save\.[^.]+(?=\.)|\.base_layer(?=\.)", "", short)
            if ".lora_magnitude_vector" in target:
                raise _refused(adapter, f"its tensor {name!r} is of DoRA, which scales the rows of W + B A")
            if _ADAPTER.search(target) or target in plain:
                raise _refused(adapter, f"r2m cannot apply its tensor {name!r}")
            plain[target] = name
    for module, product in products.items():
        if len(product.names) < 2:
            raise _refused(adapter, f"{next(iter(product.names.values()))!r} lacks the other factor")
        if f"{module}.weight" in plain:
            raise _refused(adapter, f"{plain[f'{module}.weight']!r} is there whole and as factors")
    return products, plain


def _adapted(
    module: str,
    name: str,
    product: _Product,
    adapter: WeightsFile,
    base: WeightsFile,
    config: Mapping[str, Any],
) -> Adapted:
    """Return a tensor of the base with its product, the shapes checked."""
    a, b = adapter.entries[product.names["A"]], adapter.entries[product.names["B"]]
    if name not in base.entries:
        raise _refused(adapter, f"{base.path} lacks {name!r}, which {product.names['A']!r} is for")
    entry = base.entries[name]
    transposed = product.embedding or (bool(config.get("fan_in_fan_out")) and len(a.shape) == 2)
    rank = a.shape[0] if a.shape else 0
    adapted_shape = (
        (a.shape[1], *b.shape[:1]) if transposed and len(a.shape) == 2 else (*b.shape[:1], *a.shape[1:])
    )
    if (
        rank == 0
        or math.prod(b.shape[1:]) != rank
        or adapted_shape != entry.shape
        or not entry.dtype.is_floating_point
    ):
        raise _refused(
            adapter,
            f"factors of {module} have shapes {a.shape} and {b.shape}, which do not give {name!r} of shape"
            f" {entry.shape} in {base.path}",
        )
    stated = _setting(config.get("rank_pattern"), module, config.get("r", rank), adapter)
    if stated != rank:
        raise _refused(adapter, f"{product.names['A']!r} has rank {rank}, but {ADAPTER_CONFIG} says {stated}")
    alpha = _setting(config.get("alpha_pattern"), module, config["lora_alpha"], adapter)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    right, left = (adapter.source(product.names[side]) for side in "AB")
    return Adapted(Entry(torch.float32, entry.shape), base.source(name), left, right, scale, transposed)


def _setting(pattern: Mapping[str, Any] | None, module: str, default: Any, adapter: WeightsFile) -> Any:
    """Return the first value of a `pattern` whose key fits the end of the module's name, as PEFT matches."""
    for key, value in (pattern or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as error:
            raise R2MError(f"{adapter.path}: {ADAPTER_CONFIG}: {key!r} is no pattern ({error})") from error
    return default


def _read_whole(source: Source) -> Tensor:
    tensor = torch.empty(source.entry.numel, dtype=source.entry.dtype)
    source.fill(tensor, 0)
    return tensor.reshape(source.entry.shape)


def _refused(adapter: WeightsFile, reason: str) -> R2MError:
    return R2MError(f"{adapter.path}: a LoRA adapter or one like it: {reason}, or {WAY_OUT}")
