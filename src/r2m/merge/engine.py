"""The merge of files: streamed, checked, and written whole or not at all."""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r2m.errors import R2MError
from r2m.files import discard, discard_left, publish_instead, publish_together, temporary_path
from r2m.merge.diagnostics import THRESHOLD
from r2m.merge.files import FileSource, Inputs, open_inputs, output_dtype, through_cache, written_gram_cache
from r2m.merge.gram import GramCache
from r2m.merge.heads import merge_heads
from r2m.merge.kinds import kind
from r2m.merge.lora import FactoringSink, Form
from r2m.merge.merging import Outcome, merge_weights
from r2m.merge.method import Method
from r2m.merge.recipe import ADAPTER_FILES, LORA_RANK, Recipe
from r2m.merge.rounding import Rounded
from r2m.merge.rules import Rule, assigned, ruled
from r2m.merge.stream import Progress, TensorStream
from r2m.merge.weights import factors
from r2m.models.adapter_files import Product, written_adapter
from r2m.models.config import head_average, inherited
from r2m.models.digests import weights_digest
from r2m.models.shards import ShardsWriter, belongs_to, index_path, present
from r2m.models.weight_files import ADAPTER_CONFIG
from r2m.models.weights import WeightsFile
from r2m.options import Section
from r2m.version import __version__

logger = logging.getLogger(__name__)

# As long as a digest, to reserve the header's space before the digests are known.
_UNKNOWN = "blake3:" + "0" * 64


@dataclass(frozen=True)
class Settings:
    """How a merge is run; nothing here changes its result."""

    threads: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    force: bool = False
    allow_nonfinite: bool = False
    allow_other_base: bool = False
    progress: Progress | None = None


def merge_files(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    """Merge files as a recipe says; write the merged weights and the report, and return the report.

    Raises:
        R2MError: bad options or files, values that are not finite, an input that changes meanwhile, an output
            that exists, or a full disk. Then nothing is written.
    """
    method, options = recipe.resolved()
    _check_outputs(recipe, settings.force)
    rules = recipe.resolved_rules()
    for given in (options, *(rule.options for rule in rules)):
        method.check_count(given, len(recipe.specialists))
    if method.statistics is not None and not recipe.statistics:
        raise R2MError(f"{method.name}: expected --statistics NAME=FILE a specialist: {method.statistics}")
    with ExitStack() as stack:
        inputs = open_inputs(recipe, stack, settings.allow_other_base)
        _check_overlap(recipe, inputs)
        for text in inputs.warnings:
            logger.warning("%s", text)
        return _Merge(method, options, rules, recipe, settings, inputs).run()


class _Merge:
    """One merge of open files."""

    def __init__(
        self,
        method: Method,
        options: Section,
        rules: Sequence[Rule],
        recipe: Recipe,
        settings: Settings,
        inputs: Inputs,
    ) -> None:
        self.method, self.options, self.rules = method, options, rules
        self.recipe, self.settings, self.inputs = recipe, settings, inputs
        self.rule_of = assigned(self.rules, inputs.merged)
        self.factors = factors(method, recipe.weights, sorted(recipe.specialists))
        self.source = FileSource(
            inputs.base,
            inputs.specialists,
            inputs.merged,
            settings.device,
            recipe.out.resolve().parent,
            inputs.statistics,
        )
        self.stream = TensorStream(self.source, settings.threads, settings.progress)
        self.cache: GramCache | None = None
        self.permitting = None if settings.allow_nonfinite else "--allow-nonfinite writes them all the same"

    def run(self) -> dict[str, Any]:
        recipe = self.recipe
        head = self._head()
        specs = {
            key: (output_dtype(self.recipe.dtype, entry.dtype), entry.shape)
            for key, entry in self.inputs.base.entries.items()
            if key not in self.inputs.head
        }
        specs |= {key: (dtype, tuple(tensor.shape)) for key, (tensor, dtype) in head.items()}
        unknown = dict.fromkeys(("base", *self.inputs.specialists), _UNKNOWN)
        with (
            ShardsWriter(recipe.out, specs, self._metadata(unknown), recipe.shard_size) as writer,
            _temporary(recipe.report_path) as report_file,
            ExitStack() as stack,
        ):
            types = {key: entry.dtype for key, entry in self.inputs.base.entries.items()}
            sink = Rounded(writer, types, self.permitting)
            for key, (tensor, _) in head.items():
                sink.write(key, 0, tensor.reshape(-1))
            for key in self.inputs.copied:
                sink.write(key, 0, self.inputs.base.read(key))
            factoring = self._factoring(sink) if recipe.out_lora is not None else None
            method = self.method
            if self.rules:
                method = ruled(method, self.options, self.rules, self.rule_of, self.stream)
            outcome = merge_weights(
                *(method, self.options, self.stream, self.source, factoring or sink),
                inner=self._grams,
                permitting=self.permitting,
                factors=self.factors,
            )
            digests = self._digests()
            report = self._report(digests, outcome, head, writer, sink)
            files = {recipe.report_path: report_file}
            if factoring is not None:
                changed_head = self._changed(head)
                report["lora"] = self._lora_report(factoring, changed_head)
                files |= stack.enter_context(self._adapter(factoring, changed_head, digests))
            with _errors_named(recipe.report_path):
                text = json.dumps(report, indent=2, allow_nan=False) + "\n"
                report_file.write_text(text, encoding="utf-8")
            if recipe.gram_cache is not None and self.cache is not None:
                files[recipe.gram_cache] = stack.enter_context(
                    written_gram_cache(recipe.gram_cache, self.cache)
                )
            files |= writer.complete(self._metadata(digests))
            self.inputs.watch.check()
            _publish(files, recipe, self.settings.force)
        return report

    def _head(self) -> dict[str, tuple[Tensor, torch.dtype]]:
        """Return the tensors of the merged head, and the type that each is written in."""
        if not self.inputs.head:
            return {}

        def head_of(file: WeightsFile) -> dict[str, Tensor]:
            return {key: file.tensor(key) for key in self.inputs.head if key in file.entries}

        heads = {name: head_of(file) for name, file in self.inputs.specialists.items()}
        base = self.inputs.base
        average = head_average(base.metadata, base.path)
        merged = merge_heads(heads, self.recipe.head or "average", head_of(base) or None, average)
        first = next(iter(heads.values()))
        return {
            key: (tensor, output_dtype(self.recipe.dtype, first.get(key, tensor).dtype))
            for key, tensor in merged.items()
        }

    def _factoring(self, sink: Rounded) -> FactoringSink:
        """Return what merges into `sink` and factorizes the update, before that rounds it."""
        base, rank = self.inputs.base, self.recipe.lora_rank or LORA_RANK
        return FactoringSink(sink, base.read, base.entries, rank)

    def _changed(self, head: Mapping[str, tuple[Tensor, torch.dtype]]) -> dict[str, Tensor]:
        """Return the tensors of the merged head in whose modules not all are those of the base, unrounded."""
        base = self.inputs.base
        modules = {
            key.rpartition(".")[0]
            for key, (tensor, _) in head.items()
            if key not in base.entries or not torch.equal(tensor, base.tensor(key).to(tensor.dtype))
        }
        return {key: tensor for key, (tensor, _) in head.items() if key.rpartition(".")[0] in modules}

    def _lora_report(self, factoring: FactoringSink, head: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"folder": str(self.recipe.out_lora), **factoring.report(), "whole": sorted(head)}

    def _adapter(
        self, factoring: FactoringSink, head: Mapping[str, Tensor], digests: Mapping[str, str]
    ) -> AbstractContextManager[dict[Path, Path]]:
        """Write the adapter under temporary paths, the head's tensors whole."""
        assert self.recipe.out_lora is not None
        if not factoring.factors:
            raise R2MError(
                f"{self.recipe.out_lora}: the merge changes no tensor that a LoRA adapter can hold; expected"
                " weights of layers that are matrices"
            )
        products = {
            key: Product(one.a, one.b, one.form == Form.EMBEDDING) for key, one in factoring.factors.items()
        }
        return written_adapter(self.recipe.out_lora, factoring.rank, products, head, self._metadata(digests))

    def _digests(self) -> dict[str, str]:
        """Return the digest of every input's content, reading what no pass has read."""
        files = {"base": self.inputs.base, **self.inputs.specialists}
        return {
            name: weights_digest(file, self.source.digests(index))
            for index, (name, file) in enumerate(files.items())
        }

    def _grams(self, stream: TensorStream) -> dict[str, Tensor] | None:
        """Return inner products of task vectors through the cache file, if there is to be one."""
        if self.recipe.gram_cache is None:
            return None
        identities = list(self._digests().values())
        inner, self.cache = through_cache(self.recipe.gram_cache, stream, identities)
        return inner

    def _metadata(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Return the output's provenance, and what its base says of the detector."""
        return {
            **inherited(self.inputs.base.metadata, self.inputs.base.path),
            "method": self.method.name,
            "options": _dumped(self.options),
            **({} if not self.rules else {"rules": [_described(rule) for rule in self.rules]}),
            **({} if self.factors is None else {"weights": self.factors}),
            "head": self.recipe.head or ("average" if self.inputs.head else ""),
            "exclude": self.recipe.exclude,
            "base_hash": digests["base"],
            "inputs": {name: digest for name, digest in digests.items() if name != "base"},
        }

    def _report(
        self,
        digests: Mapping[str, str],
        outcome: Outcome,
        head: Collection[str],
        writer: ShardsWriter,
        sink: Rounded,
    ) -> dict[str, Any]:
        base, comparison = self.inputs.base, outcome.comparison
        beyond = sink.warnings()
        for text in beyond:
            logger.warning("%s", text)
        columns = zip(
            self.inputs.specialists.items(),
            *(comparison.norms(), comparison.cosines(), comparison.diagnoses()),
            strict=True,
        )
        kinds = Counter(kind(key, base.entries[key].shape).value for key in self.inputs.merged)
        return {
            **self._metadata(digests),
            "r2m_version": __version__,
            "title": self.method.title,
            "citation": self.method.citation,
            "out": str(writer.path),
            **({} if not writer.shards else {"shards": [path.name for path in writer.shards]}),
            "base": {
                "file": str(base.path),
                "digest": digests["base"],
                "notes": base.notes,
                "norm": math.sqrt(comparison.survey.base),
            },
            "inputs": {
                name: {
                    "file": str(file.path),
                    "digest": digests[name],
                    "notes": file.notes,
                    "task_vector_norm": norm,
                    "cosine_to_others": cosine,
                    "norm_z": diagnosis.norm_z,
                    "cosine_z": diagnosis.cosine_z,
                    "stands_out": diagnosis.stands_out,
                }
                for (name, file), norm, cosine, diagnosis in columns
            },
            **({} if not self.rules else {"rules": self._ruled()}),
            "merged": {"tensors": len(self.inputs.merged), **kinds},
            "others": self.method.others,
            "head_tensors": sorted(head),
            "copied_from_base": list(self.inputs.copied),
            "stands_out_beyond": THRESHOLD,
            "nonfinite": outcome.nonfinite,
            "rounding": sink.report(),
            "other_integers": self.inputs.buffers,
            "update_norm": outcome.update_norm,
            "warnings": [*self.inputs.warnings, *outcome.warnings, *beyond],
            "details": outcome.described,
        }

    def _ruled(self) -> list[dict[str, Any]]:
        """Return the rules, and which tensors have each."""
        return [
            {**_described(rule), "tensors": sorted(key for key, of in self.rule_of.items() if of == number)}
            for number, rule in enumerate(self.rules)
        ]


def _dumped(options: Section) -> dict[str, Any]:
    return options.model_dump(mode="json", exclude_none=True)


def _described(rule: Rule) -> dict[str, Any]:
    return {"match": rule.match, "options": _dumped(rule.options)}


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file that is to become `path`; raises R2MError where it cannot be made."""
    discard_left(path)
    temporary = temporary_path(path)
    try:
        with _errors_named(path):
            temporary.touch()
        yield temporary
    finally:
        with suppress(OSError):
            discard(temporary)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn the system's errors into R2MError, which names the file that is to be written."""
    try:
        yield
    except OSError as error:
        raise R2MError(f"{path}: cannot be written ({error.strerror})") from error


def _publish(files: Mapping[Path, Path], recipe: Recipe, force: bool) -> None:
    """Let all outputs appear under their names, or none; raises R2MError like `_check_outputs`."""
    replaced = [*files, recipe.gram_cache] if force else [recipe.gram_cache]
    # An index goes before any of its shards changes.
    index = index_path(recipe.out)
    olds = [path for path in present(recipe.out) if force and (path == index or path not in files)]
    try:
        if olds:
            publish_instead(files, replaced, olds)
        else:
            publish_together(files, replaced)
    except FileExistsError as error:
        raise R2MError(f"{error.filename}: exists; --force replaces it") from error
    except OSError as error:
        raise R2MError(f"{error.filename}: cannot be written ({error.strerror})") from error


def _check_outputs(recipe: Recipe, force: bool) -> None:
    """Refuse outputs that exist, that are folders, or that are one file."""
    if recipe.out.suffix != ".safetensors":
        raise R2MError(f"{recipe.out}: expected a name that ends in .safetensors")
    paths = recipe.outputs
    if recipe.out_lora is not None:
        if recipe.out_lora.exists() and not recipe.out_lora.is_dir():
            raise R2MError(f"{recipe.out_lora}: is a file; expected the name of a folder")
        is_taken = recipe.out_lora.resolve() in {path.resolve() for path in paths}
        if is_taken or belongs_to(recipe.out_lora, recipe.out):
            raise R2MError(f"{recipe.out_lora}: stands for two outputs; expected different names")
    for index, path in enumerate(paths):
        is_taken = path.resolve() in {earlier.resolve() for earlier in paths[:index]}
        if is_taken or (index > 0 and belongs_to(path, recipe.out)):
            raise R2MError(f"{path}: stands for two outputs; expected different names")
        if path.exists() and not path.is_file():
            nature = "a folder" if path.is_dir() else "no regular file"
            raise R2MError(f"{path}: is {nature}; expected the name of a file")
        if os.path.lexists(path) and not force and path != recipe.gram_cache:
            raise R2MError(f"{path}: exists; --force replaces it")
        # The folder of an adapter is made.
        is_adapter = path.parent == recipe.out_lora and path.name in ADAPTER_FILES
        folder = path.parent.resolve().parent if is_adapter else path.parent
        if not folder.resolve().is_dir():
            raise R2MError(f"{folder}: no such folder")
    for path in present(recipe.out):
        if path != recipe.out and path.is_dir():
            raise R2MError(
                f"{path}: is a folder; expected a shard or an index of {recipe.out.name}, or nothing"
            )
        if not force:
            raise R2MError(f"{path}: exists, of the same name in shards; --force replaces it")


def _check_overlap(recipe: Recipe, inputs: Inputs) -> None:
    """Refuse an output that would replace a file that is read, a shard for instance."""
    read = {path.resolve() for file in inputs.files for path in file.files}
    read |= {file.path.with_name(ADAPTER_CONFIG).resolve() for file in inputs.files if file.computed}
    for path in (*recipe.outputs, *present(recipe.out)):
        if path.resolve() in read:
            raise R2MError(f"{path}: is one of the inputs; expected another name for the output")
