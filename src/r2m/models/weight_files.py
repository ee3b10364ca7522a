"""Which file holds weights, and in which format: told from first bytes and names, without torch."""

import re
import zipfile
from enum import Enum
from pathlib import Path

from r2m.errors import R2MError

EXPECTED = (
    "expected weights as .safetensors, a file of torch.save (.pt, .pth, .bin, .ckpt, …),"
    " or an index of either"
)
INDEX_SUFFIX = ".index.json"
ADAPTER_CONFIG = "adapter_config.json"
# What Hugging Face's libraries, open_clip and PEFT call the weights in a folder, the preferred format first.
SAFETENSORS_NAMES = ("model.safetensors", "open_clip_model.safetensors", "adapter_model.safetensors")
PICKLE_NAMES = ("pytorch_model.bin", "open_clip_pytorch_model.bin", "adapter_model.bin")

# The safetensors library reads no longer headers either.
LONGEST_HEADER = 100_000_000

_HEAD_BYTES = 512
# The long integer by which files of torch.save from before version 1.6 begin, as pickle writes it.
_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_SHARD = re.compile(r"-\d+-of-\d+\.")
_TRAINING_STATE = re.compile(r"^(optimi[sz]er|scheduler|scaler|rng_state|random_states|training_args)", re.I)
_FOREIGN = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras), no weights of PyTorch"),
    (b"GGUF", "a GGUF file (llama.cpp), no weights of PyTorch"),
    (b"\x93NUMPY", "an array of NumPy, no weights of PyTorch"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"BZh", "compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document, no weights"),
)


class Format(Enum):
    """How a file holds tensors."""

    SAFETENSORS = "safetensors"
    ZIP = "torch.save's archive"
    LEGACY = "torch.save's format from before PyTorch 1.6"
    INDEX = "index of shards"


def locate(path: Path) -> tuple[Path, list[str]]:
    """Return the file that holds the weights of `path`, and notes on what was chosen.

    A file stands for itself. In a folder it is an index of shards or a file of the usual name, safetensors
    before pickles, or else the only file of weights that there is, shards and training state aside.

    Raises:
        R2MError: no such file, or a folder without a clear choice.
    """
    if not path.is_dir():
        if not path.is_file():
            raise R2MError(f"{path}: no such file")
        return path, []
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    safe = [file for file in files if file.name in SAFETENSORS_NAMES or _is_index(file, ".safetensors")]
    pickles = [file for file in files if file.name in PICKLE_NAMES or _is_index(file, ".bin")]
    whole = [file for file in files if not _SHARD.search(file.name) and not _TRAINING_STATE.match(file.name)]
    candidates = safe or pickles or _preferred([file for file in whole if _holds_weights(file)])
    if len(candidates) != 1:
        names = ", ".join(file.name for file in candidates)
        listed = f"{names}; name the file" if names else "neither"
        raise R2MError(f"{path}: expected exactly one index of shards or file of weights, found {listed}")
    notes = [f"weights taken from the folder's {candidates[0].name}"]
    left = [file.name for file in pickles if safe]
    if left:
        notes[0] += f", not from {', '.join(left)}"
    return candidates[0], notes


def identify(path: Path) -> Format:
    """Return the format of the file `path` by its content; its name counts only where that says nothing.

    Raises:
        R2MError: it is no file of weights; the message says what it is, as far as known.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise R2MError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise R2MError(f"{path}: corrupt: an empty file; {EXPECTED}")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return Format.SAFETENSORS
    if path.name.endswith(INDEX_SUFFIX) and head.lstrip()[:1] in (b"{", b"["):
        return Format.INDEX
    if head.startswith(b"PK"):
        return _identify_zip(path)
    if head[:1] == b"\x80" and _LEGACY_MAGIC in head[:32]:
        return Format.LEGACY
    foreign = _foreign(head, path)
    if foreign is not None:
        raise R2MError(f"{path}: {foreign}" if ";" in foreign else f"{path}: {foreign}; {EXPECTED}")
    if path.suffix.lower() == ".safetensors":  # its reader tells what is wrong
        return Format.SAFETENSORS
    if path.name.endswith(INDEX_SUFFIX):
        return Format.INDEX
    raise R2MError(f"{path}: corrupt, or no file of weights; {EXPECTED}")


def check(path: Path) -> None:
    """Raise R2MError like `locate` and `identify` if `path` is no file or folder of weights."""
    identify(locate(path)[0])


def models_in(folder: Path) -> list[Path]:
    """Return the models in a folder, by name: itself if it holds weights of a usual name, else its files.

    An index stands for its shards. Training state is left out, and pickles of which there are safetensors.
    """
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    usual = {*SAFETENSORS_NAMES, *PICKLE_NAMES}
    if any(file.name.removesuffix(INDEX_SUFFIX) in usual for file in files):
        return [folder]
    whole = [file for file in files if index_of(file) is None and not _TRAINING_STATE.match(file.name)]
    indices = [file for file in whole if _is_index(file, "")]
    return sorted(indices + _preferred([file for file in whole if _holds_weights(file)]))


def index_of(path: Path) -> Path | None:
    """Return the index beside a file that is a shard by its name, None where there is none."""
    index = path.with_name(_SHARD.sub(".", path.name) + INDEX_SUFFIX)
    return index if _SHARD.search(path.name) and index.is_file() else None


def _is_index(path: Path, suffix: str) -> bool:
    return path.name.endswith(suffix + INDEX_SUFFIX)


def _holds_weights(path: Path) -> bool:
    try:
        return identify(path) != Format.INDEX
    except R2MError:
        return False


def _preferred(files: list[Path]) -> list[Path]:
    """Return `files` without the pickles of which there is a safetensors file beside them, of one name."""
    safe = {file.stem for file in files if file.suffix == ".safetensors"}
    return [file for file in files if file.suffix == ".safetensors" or file.stem not in safe]


def _identify_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise R2MError(
            f"{path}: corrupt: a damaged archive, perhaps of a download cut short ({error})"
        ) from error
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        raise R2MError(
            f"{path}: a TorchScript archive, which holds code; expected a state dict: load it where you"
            " trust it and save its weights alone, torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if "data.pkl" in inner:
        return Format.ZIP
    if names and all(name.endswith(".npy") for name in names):
        raise R2MError(f"{path}: an archive of NumPy arrays (.npz), no weights of PyTorch; {EXPECTED}")
    listed = ", ".join(sorted(names)[:3]) or "nothing"
    raise R2MError(f"{path}: a zip archive, but not one of torch.save: it holds {listed}; {EXPECTED}")


def _foreign(head: bytes, path: Path) -> str | None:
    """Return what a file is whose first bytes are `head`, None if they say nothing."""
    for magic, description in _FOREIGN:
        if head.startswith(magic):
            return description
    text = head.lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the weights; fetch them by `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the weights; download the file itself"
    if head[257:262] == b"ustar":
        return (
            "a tar archive; unpack it, or, if torch.save wrote it before version 0.1.10, load it with such an"
            " old PyTorch and save its state dict again"
        )
    if path.suffix.lower() == ".onnx":
        return "an ONNX model; export the state dict of the PyTorch model"
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return (
            "holds pickled Python objects that torch.save has not written; load it where you trust it and"
            " save its tensors by torch.save(state_dict, NEW)"
        )
    if text.startswith((b"{", b"[")):
        return "a text in JSON, not the weights"
    return None
