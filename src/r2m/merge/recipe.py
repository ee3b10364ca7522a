"""What `r2m merge` is asked to do, on the command line or in a recipe file; without torch."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator

from r2m.errors import R2MError
from r2m.merge import calibration, registry
from r2m.merge.method import Method
from r2m.merge.options import R2M
from r2m.merge.rules import Rule
from r2m.merge.weights import factors
from r2m.options import Section, complaint, read_yaml, with_dotted

Name = Annotated[str, Field(pattern=r"^[^=/\s]+$")]
Dtype = Literal["float32", "float16", "bfloat16"]
Head = Annotated[str, Field(pattern=r"^(average|base|specialist:.+)$")]
# The files of an adapter, as PEFT calls them.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
LORA_RANK = 16
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?:(?P<unit>[KMGT])(?P<binary>i)?)?B?", re.I)


class GivenRule(Section, strict=False):
    """Other options of the method for the tensors whose names fit a pattern."""

    match: str = Field(description="pattern of the base's names, as those of `exclude`")
    options: Annotated[dict[str, Any], Field(min_length=1)] = Field(
        description="those that differ from the recipe's, nested or dotted"
    )


class Recipe(Section, strict=False):
    """One merge of files. Paths of a recipe file are relative to its folder."""

    method: str
    base: Path
    specialists: Annotated[dict[Name, Path], Field(min_length=1)]
    out: Path
    report: Path | None = Field(default=None, description="default: `out` with the suffix .json")
    options: dict[str, Any] = Field(default={}, description="of the method, nested or dotted")
    rules: list[GivenRule] = Field(
        default=[], description="options of some tensors; the first that fits counts"
    )
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
    shard_size: int | None = Field(
        default=None, description="greatest bytes of a shard, such as 2GB; default: one file"
    )
    statistics: dict[Name, Path] = Field(default={}, description="of every specialist")
    gram_cache: Path | None = Field(default=None, description="inner products of task vectors, kept for r2m")
    out_lora: Path | None = Field(default=None, description="folder of a LoRA adapter of the same update")
    lora_rank: PositiveInt | None = Field(default=None, description=f"of `out_lora`; default: {LORA_RANK}")

    @field_validator("shard_size", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return None if value is None else bytes_of(value)

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

    def resolved_rules(self) -> list[Rule]:
        """Return the rules with complete options; raises R2MError like `resolve_rules`."""
        return resolve_rules(self.method, self.options, self.rules)


def bytes_of(size: Any) -> int:
    """Return a number of bytes from one, or from a text such as `2GB` (10⁹ each) or `500MiB` (2²⁰ each).

    Raises:
        ValueError: something else, or less than one byte.
    """
    match = _SIZE.fullmatch(f"{size}")
    if match is None:
        raise ValueError(f"expected a size such as 2GB, 500MB or 4GiB, got {size!r}")
    step = 1024 if match["binary"] else 1000
    number = int(float(match["number"]) * step ** " KMGT".index((match["unit"] or " ").upper()))
    if number < 1:
        raise ValueError(f"expected a size of at least one byte, got {size!r}")
    return number


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


def resolve_rules(
    method: str, options: Mapping[str, Any], rules: Sequence[GivenRule | Mapping[str, Any]]
) -> list[Rule]:
    """Return rules with complete options: those of the merge, `options`, with what each rule changes.

    Raises:
        R2MError: no rule, an unknown or invalid option, or another method.
    """
    nested, resolved = with_dotted({}, options), []
    merging, _ = calibration.calibrated(*resolve(method, options))
    for number, given in enumerate(rules):
        try:
            rule = GivenRule.model_validate(given)
        except ValidationError as error:
            raise R2MError(f"rules[{number}]: {complaint(error)}") from error
        source = f"rules[{number}] {rule.match!r}"
        if calibration.KEY in rule.options:
            raise R2MError(f"{source}: {calibration.KEY} holds for all tensors; expected it beside the rules")
        try:
            chosen, complete = resolve(method, _changed(nested, with_dotted({}, rule.options)))
        except R2MError as error:
            raise R2MError(f"{source}: {error}") from error
        if calibration.calibrated(chosen, complete)[0].name != merging.name:
            raise R2MError(f"{source}: names another method; expected other options of {merging.name}")
        resolved.append(Rule(rule.match, complete, source))
    return resolved


def read(path: Path, **changes: Any) -> dict[str, Any]:
    """Return what a recipe file says, with paths from its folder; `changes` win, options one by one.

    Specialists that are not by name are as the file says (`r2m.merge.specialist_files`).

    Raises:
        R2MError: the file is missing or no mapping.
    """
    said = read_yaml(path)
    folder = path.parent
    for key in ("base", "out", "report", "gram_cache", "out_lora"):
        if isinstance(said.get(key), str):
            said[key] = folder / said[key]
    for key in ("specialists", "statistics"):
        if isinstance(said.get(key), dict):
            said[key] = {name: folder / str(file) for name, file in said[key].items()}
    options = said.get("options")
    if isinstance(options, dict):
        changes["options"] = {**options, **changes.get("options", {})}
    return {**said, **changes}


def build(content: Mapping[str, Any], source: str, file: Path | None = None) -> Recipe:
    """Check a recipe that came from `source`, which is a `file` perhaps.

    Raises:
        R2MError: names the source, the key and what was expected.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise R2MError(f"{source}: {complaint(error)}") from error
    if file is not None and file.resolve() in {output.resolve() for output in recipe.outputs}:
        raise R2MError(f"{file}: is the recipe itself; expected another name for the output")
    return recipe


def _changed(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `options` with nested `changes`; of alternatives, such as rules for a rank, theirs."""
    result = dict(options)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key not in ("rank", "scale"):
            value = _changed(old, value)
        result[key] = value
    return result
