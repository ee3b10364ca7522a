"""Generators that published data sets were made with: family, domains, and the names of their folders."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from r2m.errors import R2MError
from r2m.options import FAMILIES, Family, nearest

Domain = Literal["ff", "cdf", "own"]
KNOWN: tuple[Domain, ...] = ("ff", "cdf")


@dataclass(frozen=True, eq=False)
class Method:
    """One generator.

    Attributes:
        name: what r2m calls it.
        family: FS, FR, EFS or FE.
        domains: the reals that it forges: FaceForensics++'s, Celeb-DF's, or its own, which come with it.
        aliases: other names of its folders and labels; case and punctuation do not count.
        is_test_only: by the protocol of its data set nothing is trained on it.
    """

    name: str
    family: Family
    domains: tuple[Domain, ...] = KNOWN
    aliases: tuple[str, ...] = ()
    is_test_only: bool = False


def _unknown(name: str, family: Family, *aliases: str) -> Method:
    return Method(name, family, ("own",), aliases, is_test_only=True)


# DF40 (Yan et al., NeurIPS 2024), table 1: 31 methods on both domains, and nine that are only tested on.
DF40 = (
    Method("fsgan", "FS"),
    Method("faceswap", "FS"),
    Method("simswap", "FS"),
    Method("inswap", "FS", aliases=("inswapper",)),
    Method("blendface", "FS"),
    Method("uniface", "FS"),
    Method("mobileswap", "FS", aliases=("mobilefaceswap",)),
    Method("e4s", "FS"),
    Method("facedancer", "FS"),
    _unknown("deepfacelab", "FS", "dfl"),
    Method("fomm", "FR"),
    Method("facevid2vid", "FR", aliases=("face_vid2vid", "fs_vid2vid")),
    Method("wav2lip", "FR"),
    Method("mraa", "FR"),
    Method("one_shot_free", "FR", aliases=("oneshot",)),
    Method("pirender", "FR"),
    Method("tpsm", "FR", aliases=("tpsmm",)),
    Method("lia", "FR"),
    Method("danet", "FR", aliases=("dagan",)),
    Method("sadtalker", "FR"),
    Method("mcnet", "FR"),
    Method("hyperreenact", "FR"),
    _unknown("heygen", "FR", "heygen_new"),
    Method("vqgan", "EFS"),
    Method("stylegan2", "EFS"),
    Method("stylegan3", "EFS"),
    Method("styleganxl", "EFS"),
    Method("sd2_1", "EFS", aliases=("sd2.1", "stablediffusion2.1")),
    Method("ddim", "EFS", aliases=("ddpm",)),
    Method("rddm", "EFS"),
    Method("pixart", "EFS", aliases=("pixart_alpha",)),
    Method("dit", "EFS", aliases=("dit_xl_2",)),
    Method("sit", "EFS", aliases=("sit_xl_2",)),
    _unknown("midjourney", "EFS", "midjourney6", "mj"),
    _unknown("whichisreal", "EFS", "whichfaceisreal"),
    _unknown("collabdiff", "FE", "collaborative_diffusion"),
    _unknown("e4e", "FE"),
    _unknown("stargan", "FE"),
    # DF40 calls the folder of StarGAN v2 StarGAN2; there is none of another method of that name.
    _unknown("starganv2", "FE", "stargan2"),
    _unknown("styleclip", "FE"),
)

# FaceForensics++ (Rössler et al., ICCV 2019) by its folders; its FaceSwap is not that of DF40.
FACEFORENSICS = (
    Method("ff_deepfakes", "FS", ("ff",), ("deepfakes", "ff_df")),
    Method("ff_face2face", "FR", ("ff",), ("face2face", "ff_f2f")),
    Method("ff_faceswap", "FS", ("ff",), ("faceswap", "ff_fs")),
    Method("ff_neuraltextures", "FR", ("ff",), ("neuraltextures", "ff_nt")),
    Method("ff_faceshifter", "FS", ("ff",), ("faceshifter", "ff_fh", "ff_sh")),
    Method("deepfakedetection", "FS", ("own",), ("dfd", "dfd_fake"), is_test_only=True),
)

OTHERS = (
    Method("celeb_synthesis", "FS", ("cdf",), ("celebdfv1_fake", "celebdfv2_fake")),
    Method("dfdc_fake", "FS", ("own",)),
    Method("dfdcp_a", "FS", ("own",), ("dfdcp_fakea", "method_a")),
    Method("dfdcp_b", "FS", ("own",), ("dfdcp_fakeb", "method_b")),
    Method("fakeapp", "FS", ("own",), ("uadfv_fake",), is_test_only=True),
    Method("deeperforensics", "FS", ("ff",), ("df_fake",)),
)


@cache
def _by_key(methods: tuple[Method, ...]) -> Mapping[str, Method]:
    # Of two methods of a name, the first counts.
    return {key(name): method for method in reversed(methods) for name in (*method.aliases, method.name)}


def key(name: str) -> str:
    """Return a folder's name without case and punctuation, by which names are compared."""
    return re.sub(r"[\W_]+", "", name.casefold())


def find(folder: str, methods: tuple[Method, ...] = DF40) -> Method | None:
    """Return the method that a folder, or a label, is called after; None if there is none."""
    return _by_key(methods).get(key(folder))


def get(folder: str, methods: tuple[Method, ...] = DF40, where: str = "") -> Method:
    """Return the method that a folder is called after.

    Raises:
        R2MError: unknown name; it begins with `where` and tells the nearest known one.
    """
    method = find(folder, methods)
    if method is None:
        names = [method.name for method in methods]
        raise R2MError(
            f"{where}{': ' if where else ''}unknown method {folder!r}{nearest(folder.casefold(), names)};"
            f" a method of your own needs its family: --family {slug(folder)}=FS ({', '.join(FAMILIES)})"
        )
    return method


def own(families: Mapping[str, Family]) -> tuple[Method, ...]:
    """Return the user's own methods, name → family."""
    return tuple(Method(slug(name), family, (*KNOWN, "own"), (name,)) for name, family in families.items())


def slug(name: str) -> str:
    """Return a name in the form that params.yaml takes: lower case a–z, 0–9 and _."""
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def name_of(folder: str) -> str:
    """Return the name of a data set that lies in a folder: no method's, and there is one in any script."""
    name = slug(folder) or f"set_{hashlib.blake2b(folder.encode(), digest_size=4).hexdigest()}"
    return f"{name}_set" if of_name(name) or name == "real" else name


@cache
def of_name(name: str) -> Method | None:
    """Return the method that r2m calls `name`, of any data set."""
    return next((method for method in (*DF40, *FACEFORENSICS, *OTHERS) if method.name == name), None)
