"""What `r2m merge` is asked to do, on the command line or in a recipe file; without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from r2m.errors import R2MError
from r2m.merge import calibration, registry
from r2m.merge.method import Method
from r2m.merge.options import R2M
from r2m.merge.weights import factors
from r2m.options import Section, complaint, read_yaml, with_dotted

Name = Annotated[str, Field(pattern=r"^[^=/\s]+$")]
Dtype = Literal["float32", "float16", "bfloat16"]
Head = Annotated[str, Field(pattern=r"^(average|base|specialist:.+)$")]
# The files of an adapter, as PEFT calls them.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
LORA_RANK = 16


class Recipe(Section, strict=False):
    """One merge of files. Paths of a recipe file are relative to its folder."""

    method: str
    base: Path
    specialists: Annotated[dict[Name, Path], Field(min_length=1)]
    out: Path
    report: Path | None = Field(default=None, description="default: `out` with the suffix .json")
    options: dict[str, Any] = Field(default={}, description="of the method, nested or dotted")
    weights: dict[Name, Annotated[float, Field(strict=True)]] = Field(
        default={}, description="of specialists, relative; default: 1 each"
    )
    head: Head | None = Field(default=None, description="average | base | specialist:NAME")
    head_prefix: str | None = Field(default=None, description="tensors that are the head")
    resample_positions: bool = Field(
        default=False, description="bring CLIPs' position embeddings to the base's size"
    )
    exclude: list[str] = Field(default=[], description="patterns of tensors that stay as in the base")
    dtype: Dtype | None = Field(default=None, description="of the output; default: each tensor's in the base")
    statistics: dict[Name, Path] = Field(default={}, description="of every specialist")
    gram_cache: Path | None = Field(default=None, description="inner products of task vectors, kept for r2m")
    out_lora: Path | None = Field(default=None, description="folder of a LoRA adapter of the same update")
    lora_rank: PositiveInt | None = Field(default=None, description=f"of `out_lora`; default: {LORA_RANK}")

    @property
    def report_path(self) -> Path:
        """Where the report goes."""
        return self.report or self.out.with_suffix(".json")

    @property
    def outputs(self) -> list[Path]:
        """All files that are written."""
        adapter = [] if self.out_lora is None else [self.out_lora / name for name in ADAPTER_FILES]
        return [path for path in (self.out, self.report_path, self.gram_cache, *adapter) if path is not None]

    def resolved(self) -> tuple[Method, Section]:
        """Return the method and its complete options.

        Raises:
            R2MError: unknown method, unknown or invalid option, or fields that contradict each other.
        """
        if self.head is not None and self.head_prefix is None:
            raise R2MError(f"head {self.head!r}: say which tensors are the head (head_prefix)")
        if "base" in self.specialists:
            raise R2MError("specialists: 'base' is what reports call the base; expected another name")
        if self.lora_rank is not None and self.out_lora is None:
            raise R2MError("lora_rank: is that of an adapter; expected out_lora beside it")
        method, options = resolve(self.method, self.options)
        if self.statistics and method.statistics is None:
            raise R2MError(f"statistics: {self.method} takes none")
        if self.gram_cache is not None and not isinstance(options, R2M):
            raise R2MError(f"gram_cache: {self.method} needs no inner products, only r2m does")
        merging, _ = calibration.calibrated(method, options)
        if factors(merging, self.weights, self.specialists) is not None and self.gram_cache is not None:
            raise R2MError("gram_cache: holds inner products without weights; expected no weights beside it")
        return method, options


def resolve(method: str, options: Mapping[str, Any]) -> tuple[Method, Section]:
    """Return a method by name, and its complete options from nested or dotted ones.

    With `calibrate: svc` among them, that is svc with the method inside.

    Raises:
        R2MError: unknown method, unknown or invalid option.
    """
    name, nested = calibration.expanded(registry.get(method).name, with_dotted({}, options))
    chosen = registry.get(name)
    try:
        complete = chosen.options.model_validate(nested)
    except ValidationError as error:
        raise R2MError(f"options of {method}: {complaint(error)}") from error
    return calibration.completed(chosen, complete), complete


def read(path: Path, **changes: Any) -> Recipe:
    """Read a recipe file; `changes` win over what it says, options one by one.

    Raises:
        R2MError: names the file, the key and what was expected.
    """
    content = read_yaml(path)
    folder = path.parent
    for key in ("base", "out", "report", "gram_cache", "out_lora"):
        if isinstance(content.get(key), str):
            content[key] = folder / content[key]
    for key in ("specialists", "statistics"):
        if isinstance(content.get(key), dict):
            content[key] = {name: folder / str(file) for name, file in content[key].items()}
    options = content.get("options")
    if isinstance(options, dict):
        changes["options"] = {**options, **changes.get("options", {})}
    recipe = build({**content, **changes}, str(path))
    if path.resolve() in {output.resolve() for output in recipe.outputs}:
        raise R2MError(f"{path}: is the recipe itself; expected another name for the output")
    return recipe


def build(content: dict[str, Any], source: str) -> Recipe:
    """Check a recipe that came from `source`; raises R2MError like `read`."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise R2MError(f"{source}: {complaint(error)}") from error
