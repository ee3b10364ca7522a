"""Conventions in which checkpoints name the tensors of a CLIP vision transformer, and which one a file has.

The same network is called otherwise by Hugging Face's transformers (`CLIPVisionModel`), by OpenAI's code and
open_clip, and by timm (`vit_*_clip_*`). A tensor's role is what timm calls it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from r2m.models.names import WRAPPERS

CLASS_TOKEN, POSITIONS, PATCHES = "cls_token", "pos_embed", "patch_embed.proj.weight"
QKV = ("attn.qkv.weight", "attn.qkv.bias")


@dataclass(frozen=True, eq=False)
class Convention:
    """Names of one convention, by role.

    `tower` is what models of images and texts put before the names of the vision transformer's. `outside` has
    the names outside of blocks, `inside` those within one, behind `blocks` and its number: three of q, k and
    v where these are apart. `projection` leads into the space of texts; it stands beside the tower if
    `projects_outside`, and is (width, out), not (out, width), if `projects_transposed`.
    """

    title: str
    tower: str
    outside: Mapping[str, str]
    blocks: str
    inside: Mapping[str, tuple[str, ...]]
    projection: str
    projects_outside: bool = False
    projects_transposed: bool = False
    has_batch: bool = False

    def roles(self, depth: int) -> dict[str, tuple[str, ...]]:
        """Return role → names behind the prefix, of a transformer of `depth` blocks."""
        outside = {role: (name,) for role, name in self.outside.items()}
        return outside | {
            f"blocks.{block}.{role}": tuple(f"{self.blocks}{block}.{name}" for name in names)
            for block in range(depth)
            for role, names in self.inside.items()
        }


def _of_layers(layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{role}.{one}": f"{name}.{one}" for role, name in layers.items() for one in ("weight", "bias")}


def _inside(layers: Mapping[str, str], qkv: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the names within a block; those of `qkv` lack `weight` and `bias`."""
    single = {role: (name,) for role, name in _of_layers(layers).items()}
    return single | {role: tuple(name + role.rpartition(".")[2] for name in qkv) for role in QKV}


TIMM = Convention(
    title="timm's",
    tower="",
    outside={
        **{CLASS_TOKEN: CLASS_TOKEN, POSITIONS: POSITIONS, PATCHES: PATCHES},
        **_of_layers({"norm_pre": "norm_pre", "norm": "norm"}),
    },
    blocks="blocks.",
    inside=_inside(
        {name: name for name in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")}, ("attn.qkv.",)
    ),
    projection="head.weight",
    has_batch=True,
)
OPENAI = Convention(
    title="OpenAI's and open_clip's",
    tower="visual.",
    outside={
        **{CLASS_TOKEN: "class_embedding", POSITIONS: "positional_embedding", PATCHES: "conv1.weight"},
        **_of_layers({"norm_pre": "ln_pre", "norm": "ln_post"}),
    },
    blocks="transformer.resblocks.",
    inside=_inside(
        {
            "norm1": "ln_1",
            "attn.proj": "attn.out_proj",
            "norm2": "ln_2",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
        },
        ("attn.in_proj_",),
    ),
    projection="proj",
    projects_transposed=True,
)
HUGGING_FACE = Convention(
    title="Hugging Face's",
    tower="vision_model.",
    outside={
        CLASS_TOKEN: "embeddings.class_embedding",
        POSITIONS: "embeddings.position_embedding.weight",
        PATCHES: "embeddings.patch_embedding.weight",
        **_of_layers({"norm_pre": "pre_layrnorm", "norm": "post_layernorm"}),  # spelled so there
    },
    blocks="encoder.layers.",
    inside=_inside(
        {
            "norm1": "layer_norm1",
            "attn.proj": "self_attn.out_proj",
            "norm2": "layer_norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
        ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    ),
    projection="visual_projection.weight",
    projects_outside=True,
)
CONVENTIONS = (TIMM, OPENAI, HUGGING_FACE)


@dataclass(frozen=True, eq=False)
class Tower:
    """The vision transformer in a file: its convention, what stands before its names, and its blocks.

    `own` has the file's names by those without the segments that wrappers put in.
    """

    convention: Convention
    prefix: str
    depth: int
    own: Mapping[str, str]

    @property
    def root(self) -> str:
        """What stands before the names of the whole model: the prefix without the tower's own."""
        return self.prefix.removesuffix(self.convention.tower)

    @property
    def projection(self) -> str:
        """Name of the projection into the space of texts, whether it is there or not."""
        prefix = self.root if self.convention.projects_outside else self.prefix
        return prefix + self.convention.projection

    @cached_property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Role → names, the wrappers' segments left out."""
        return self.names(self.depth)

    def names(self, depth: int) -> dict[str, tuple[str, ...]]:
        """Return role → names of a transformer of `depth` blocks called as this one."""
        roles = self.convention.roles(depth)
        return {role: tuple(self.prefix + name for name in names) for role, names in roles.items()}


def unwrapped_names(names: Collection[str]) -> dict[str, str]:
    """Return names without wrappers' segments → names; the names themselves where two would become one."""
    shorter = {
        ".".join(segment for segment in name.split(".") if segment not in WRAPPERS): name for name in names
    }
    return shorter if len(shorter) == len(names) else {name: name for name in names}


def find_tower(names: Collection[str]) -> Tower | None:
    """Return the vision transformer of a CLIP that tensors of these names hold; None for none or several.

    It has an embedding of patches, a class token, positions, a norm before the blocks, and blocks.
    """
    own = unwrapped_names(names)
    found = []
    for convention in CONVENTIONS:
        anchor = convention.outside[PATCHES]
        starts = [name.removesuffix(anchor) for name in own if name.endswith(anchor)]
        first = convention.roles(1)
        needed = [
            first[role][0] for role in (CLASS_TOKEN, POSITIONS, "norm_pre.weight", f"blocks.0.{QKV[0]}")
        ]
        for prefix in starts:
            if prefix[-1:] in ("", ".") and all(prefix + name in own for name in needed):
                found.append(Tower(convention, prefix, _depth(own, prefix + convention.blocks), own))
    return found[0] if len(found) == 1 else None


def convention_of_modules(names: Collection[str]) -> Convention | None:
    """Return the convention of names that may be some of a tower's only, as an adapter's are."""
    matching = [
        convention
        for convention in CONVENTIONS
        if any(_is_inside(name, convention) for name in unwrapped_names(names))
    ]
    return matching[0] if len(matching) == 1 else None


def _is_inside(name: str, convention: Convention) -> bool:
    before, blocks, behind = name.rpartition(convention.blocks)
    number, _, rest = behind.partition(".")
    is_segment = before[-1:] in ("", ".")
    inside = {one for names in convention.inside.values() for one in names}
    return bool(blocks) and is_segment and number.isdecimal() and rest in inside


def _depth(names: Collection[str], blocks: str) -> int:
    numbers = [name.removeprefix(blocks).partition(".")[0] for name in names if name.startswith(blocks)]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
