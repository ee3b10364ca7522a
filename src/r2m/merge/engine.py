"""The merge of files: streamed, checked, and written whole or not at all."""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from r2m import __version__
from r2m.errors import R2MError
from r2m.files import write_text
from r2m.merge.blocks import Block, Blocks, Progress
from r2m.merge.diagnostics import THRESHOLD
from r2m.merge.file_source import FileSource
from r2m.merge.gram_cache import through_cache
from r2m.merge.heads import merge_heads
from r2m.merge.inputs import Inputs, check_stated_bases, open_inputs, output_dtype
from r2m.merge.kinds import kind
from r2m.merge.merging import check_count, updater
from r2m.merge.method import Method
from r2m.merge.recipe import Recipe
from r2m.merge.survey import Survey, is_finite, survey, total, warnings
from r2m.models.digests import digest_of, weights_digest
from r2m.models.weights import WeightsFile
from r2m.models.writer import WeightsWriter
from r2m.params import Section

logger = logging.getLogger(__name__)

# As long as a digest: the header's place is kept before the digests are known.
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
        R2MError: bad options or files, values that are not finite, an output that exists, or a full disk.
            Then nothing is written.
    """
    method, options = recipe.resolved()
    _check_outputs(recipe, settings.force)
    check_count(method, len(recipe.specialists))
    if method.statistics is not None and not recipe.statistics:
        raise R2MError(f"{method.name}: expected --statistics NAME=FILE a specialist: {method.statistics}")
    with ExitStack() as stack:
        inputs = open_inputs(recipe, stack, settings.allow_other_base)
        _check_overlap(recipe, inputs)
        for text in inputs.warnings:
            logger.warning("%s", text)
        merge = _Merge(method, options, recipe, settings, inputs)
        return merge.run()


class _Merge:
    """One merge of open files."""

    def __init__(
        self, method: Method, options: Section, recipe: Recipe, settings: Settings, inputs: Inputs
    ) -> None:
        self.method, self.options = method, options
        self.recipe, self.settings, self.inputs = recipe, settings, inputs
        self.source = FileSource(
            inputs.base,
            inputs.specialists,
            inputs.merged,
            settings.device,
            recipe.out.resolve().parent,
            inputs.statistics,
        )
        self.blocks = Blocks(self.source, settings.threads, settings.progress)
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        head = self._head()
        specs = {
            key: (output_dtype(self.recipe.dtype, entry.dtype), entry.shape)
            for key, entry in self.inputs.base.entries.items()
            if key not in self.inputs.head
        }
        specs |= {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in head.items()}
        unknown = dict.fromkeys(("base", *self.inputs.specialists), _UNKNOWN)
        with WeightsWriter(self.recipe.out, specs, self._metadata(unknown)) as writer:
            for key, tensor in head.items():
                writer.write(key, 0, tensor.reshape(-1))
            for key in self.inputs.copied:
                writer.write(key, 0, self.inputs.base.read(key).to(specs[key][0]))
            described, whole, update_norm, nonfinite = self._merge_tensors(writer)
            digests = self._digests()
            if not self.settings.allow_other_base:
                check_stated_bases(self.inputs.specialists, digests["base"])
            report = self._report(digests, described, whole, update_norm, nonfinite, head)
            text = json.dumps(report, indent=2, allow_nan=False) + "\n"
            writer.finish(self._metadata(digests))
        write_text(self.recipe.report_path, text)
        return report

    def _merge_tensors(self, writer: WeightsWriter) -> tuple[dict[str, Any], Survey, float, list[str]]:
        """Write every merged tensor; return the method's report, the survey, ‖update‖, tensors not finite."""
        one_pass = (
            self.method.grain == "elements"
            and self.method.prepare is None
            and not self.settings.allow_nonfinite
        )
        surveys: dict[str, Survey] = {}
        nonfinite: list[str] = []
        if not one_pass:
            surveys = self._survey()
            nonfinite = [key for key, one in surveys.items() if not one.is_finite]
            for key in nonfinite:
                logger.warning("%s: NaN or infinite values among the inputs; averaged", key)
            self._warn(total([one for key, one in surveys.items() if key not in nonfinite]))
        finite = Blocks(
            self.source,
            self.settings.threads,
            self.settings.progress,
            [key for key in self.blocks.keys if key not in nonfinite],
        )
        finite.grams = self._grams(finite)
        update, state = updater(self.method, finite, self.options)
        self.source.digesting = one_pass

        def work(block: Block) -> tuple[float, Survey | None]:
            seen = survey(block) if one_pass else None
            change = block.mean() if block.key in nonfinite else update(block)
            length = torch.linalg.vector_norm(change).double().item()
            merged = change.add_(block.base()).to(writer.dtype(block.key))
            inputs_are_finite = seen is None or seen.is_finite
            if inputs_are_finite and not (self.settings.allow_nonfinite or is_finite(merged)):
                raise R2MError(
                    f"{block.key}: merging gives NaN or values beyond {merged.dtype} from finite inputs;"
                    " --allow-nonfinite writes them all the same"
                )
            writer.write(block.key, block.start, merged.reshape(-1).cpu())
            return length**2, seen

        squares = []
        for key, results in self.blocks.map(work, self.method.grain, label="merging"):
            squares += [square for square, _ in results]
            seen = [one for _, one in results if one is not None]
            if seen:
                surveys[key] = self._checked(key, total(seen))
        self.source.digesting = False
        whole = total([one for key, one in surveys.items() if key not in nonfinite])
        if one_pass:
            self._warn(whole)
        described = self.method.describe(state) if self.method.describe is not None else {}
        if described.get("lambda") == 0:
            self.notes.append("no residual is left of any specialist: the merge is the Real component alone")
            logger.warning("%s", self.notes[-1])
        return described, whole, math.sqrt(math.fsum(x for x in squares if math.isfinite(x))), nonfinite

    def _survey(self) -> dict[str, Survey]:
        """Read everything once: sums of every tensor, and hashes."""
        self.source.digesting = True
        found = {
            key: self._checked(key, total(parts))
            for key, parts in self.blocks.map(survey, "elements", label="checking")
        }
        self.source.digesting = False
        return found

    def _checked(self, key: str, seen: Survey) -> Survey:
        """Return `seen`; raise R2MError if values are not finite and may not be so."""
        if seen.is_finite or self.settings.allow_nonfinite:
            return seen
        for file in (self.inputs.base, *self.inputs.specialists.values()):
            if key in file.entries and not file.tensor(key).isfinite().all():
                raise R2MError(
                    f"{file.path}: {key} holds NaN or infinite values; --allow-nonfinite merges all the same"
                )
        raise R2MError(f"{key}: a task vector exceeds the range of float32")

    def _warn(self, whole: Survey) -> None:
        for text in warnings(self.source.names, whole):
            logger.warning("%s", text)

    def _head(self) -> dict[str, Tensor]:
        """Return the merged head, in the output's dtype."""
        if not self.inputs.head:
            return {}

        def of(file: WeightsFile) -> dict[str, Tensor]:
            return {key: file.tensor(key) for key in self.inputs.head if key in file.entries}

        heads = {name: of(file) for name, file in self.inputs.specialists.items()}
        merged = merge_heads(heads, self.recipe.head or "average", of(self.inputs.base) or None)
        first = next(iter(heads.values()))
        return {
            key: tensor.to(output_dtype(self.recipe.dtype, first.get(key, tensor).dtype))
            for key, tensor in merged.items()
        }

    def _digests(self) -> dict[str, str]:
        """Return the digest of every input's content, reading what no pass has read."""
        files = {"base": self.inputs.base, **self.inputs.specialists}
        result = {}
        for index, (name, file) in enumerate(files.items()):
            digests = self.source.digests(index)
            for key in file.entries:
                if key not in digests:
                    digests[key] = digest_of(file.read(key))
            result[name] = weights_digest(file, digests)
        return result

    def _grams(self, blocks: Blocks) -> dict[str, Tensor] | None:
        """Return inner products of task vectors through the cache file, if there is to be one."""
        if self.recipe.gram_cache is None:
            return None
        return through_cache(self.recipe.gram_cache, blocks, list(self._digests().values()))

    def _metadata(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Return the output's provenance."""
        own = {"base_hash": self.inputs.base_hash} if self.inputs.base_hash is not None else {}
        return {
            **own,
            "method": self.method.name,
            "options": self.options.model_dump(mode="json", exclude_none=True),
            "head": self.recipe.head or ("average" if self.inputs.head else ""),
            "exclude": self.recipe.exclude,
            "base": digests["base"],
            "inputs": {name: one for name, one in digests.items() if name != "base"},
        }

    def _report(
        self,
        digests: Mapping[str, str],
        described: dict[str, Any],
        whole: Survey,
        update_norm: float,
        nonfinite: list[str],
        head: Mapping[str, Tensor],
    ) -> dict[str, Any]:
        base = self.inputs.base
        columns = zip(
            self.inputs.specialists.items(), whole.norms(), whole.cosines(), whole.diagnoses(), strict=True
        )
        kinds = Counter(kind(key, base.entries[key].shape).value for key in self.inputs.merged)
        return {
            **self._metadata(digests),
            "r2m_version": __version__,
            "title": self.method.title,
            "citation": self.method.citation,
            "out": str(self.recipe.out),
            "base": {
                "file": str(base.path),
                "digest": digests["base"],
                "notes": base.notes,
                "norm": math.sqrt(whole.base),
            },
            "inputs": {
                name: {
                    "file": str(file.path),
                    "digest": digests[name],
                    "notes": file.notes,
                    "task_vector_norm": norm,
                    "cosine_to_others": cosine,
                    "norm_z": found.norm_z,
                    "cosine_z": found.cosine_z,
                    "stands_out": found.stands_out,
                }
                for (name, file), norm, cosine, found in columns
            },
            "merged": {"tensors": len(self.inputs.merged), **kinds},
            "others": self.method.others,
            "head_tensors": sorted(head),
            "copied_from_base": list(self.inputs.copied),
            "stands_out_beyond": THRESHOLD,
            "nonfinite": nonfinite,
            "update_norm": update_norm,
            "warnings": [*self.inputs.warnings, *warnings(self.source.names, whole), *self.notes],
            "details": described,
        }


def _check_outputs(recipe: Recipe, force: bool) -> None:
    """Refuse outputs that exist, that are folders, or that are one file."""
    if recipe.out.suffix != ".safetensors":
        raise R2MError(f"{recipe.out}: expected a name that ends in .safetensors")
    paths = recipe.outputs
    for index, path in enumerate(paths):
        if path.resolve() in {other.resolve() for other in paths[:index]}:
            raise R2MError(f"{path}: stands for two outputs; expected different names")
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise R2MError(f"{path}: is {what}; expected the name of a file")
        if os.path.lexists(path) and not force and path != recipe.gram_cache:
            raise R2MError(f"{path}: exists; --force replaces it")
        if not path.resolve().parent.is_dir():
            raise R2MError(f"{path.parent}: no such folder")


def _check_overlap(recipe: Recipe, inputs: Inputs) -> None:
    """Refuse an output that would replace a file that is read, a shard for instance."""
    files = (inputs.base, *inputs.specialists.values(), *inputs.statistics.values())
    read = {path.resolve() for file in files for path in file.files}
    for path in recipe.outputs:
        if path.resolve() in read:
            raise R2MError(f"{path}: is one of the inputs; expected another name for the output")
