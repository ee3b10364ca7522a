"""Stages and jobs: what a rule of the workflow runs, as a plain function with typed arguments."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r2m.data.sources import verify
from r2m.digest import code_digest
from r2m.errors import R2MError
from r2m.options import nearest


@dataclass(frozen=True)
class Job:
    """A call of the function `module:name` by keyword: files it reads, values, and files it writes.

    `inputs` and `outputs` hold paths, alone or in lists, mappings and dataclasses. `also` are files that only
    have to be there before; of those in `settled` not even a later time runs the job again. `receipts` are
    those of the pinned packages whose files the function opens. `modules` hold code that the function finds
    at run time, as a merging method.
    """

    function: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    values: Mapping[str, Any]
    also: Sequence[Path] = ()
    receipts: Sequence[Path] = ()
    modules: Sequence[str] = ()
    settled: Sequence[Path] = ()

    @property
    def reads(self) -> list[str]:
        """The files that have to be there."""
        return list(dict.fromkeys(str(path) for path in [*_paths(self.inputs), *self.also, *self.receipts]))

    @property
    def record(self) -> dict[str, Any]:
        """The call in plain values, by which Snakemake tells whether it changed."""
        arguments = _plain({**self.inputs, **self.values, **self.outputs})
        return {"function": self.function, "code": code_digest([self.function, *self.modules]), **arguments}

    @property
    def gpus(self) -> int:
        """How many GPUs it takes: with `device: cuda` one for each of its processes, else none."""
        compute = self.values.get("compute")
        device = self.values.get("device") if compute is None else compute.device
        return getattr(self.values.get("options"), "processes", 1) if device == "cuda" else 0

    def run(self, threads: int = 1) -> None:
        """Call the function, with `threads` where it takes them; raises R2MError at damaged packages."""
        for receipt in self.receipts:
            verify(receipt)
        module, name = self.function.split(":")
        function = getattr(importlib.import_module(module), name)
        arguments = {**self.inputs, **self.values, **self.outputs}
        if "threads" in inspect.signature(function).parameters:
            arguments["threads"] = threads
        function(**arguments)


@dataclass(frozen=True)
class Captioned:
    """What the report says of a file: the name of its caption, a category and labels.

    Labels may hold wildcards in braces, or follow from the wildcards.
    """

    caption: str
    category: str
    labels: Mapping[str, str] | Callable[[Any], Mapping[str, str]]


@dataclass(frozen=True)
class Stage:
    """Jobs of one rule, which differ in their wildcards.

    `outputs` are patterns of paths, of which `folders` are directories. `instances` are the values of the
    wildcards of every job that the params ask for. `place` is where logs and benchmarks lie, by default the
    stage's name; `report` tells which outputs go into the report, and `caption` is the text of a caption that
    stands in no file.
    """

    name: str
    outputs: Mapping[str, str]
    job: Callable[..., Job]
    instances: Sequence[Mapping[str, str]] = ({},)
    folders: frozenset[str] = frozenset()
    memory: int = 1000
    threads: int = 1
    priority: int = 0
    is_benchmarked: bool = True
    place: str = ""
    report: Mapping[str, Captioned] = field(default_factory=dict)
    caption: str = ""

    @cached_property
    def wildcards(self) -> list[str]:
        """Names of the wildcards, in the order of the first output."""
        return list(dict.fromkeys(re.findall(r"\{(\w+)\}", next(iter(self.outputs.values())))))

    @property
    def log(self) -> str:
        """Pattern of the log file."""
        return f"results/logs/{self._own}.log"

    @property
    def benchmark(self) -> str:
        """Pattern of the file of time and memory."""
        return f"results/benchmarks/{self._own}.tsv"

    @property
    def _own(self) -> str:
        parts = [f"seed{{{name}}}" if name == "seed" else f"{{{name}}}" for name in self.wildcards]
        return "/".join([self.place or self.name, *parts])

    def paths(self, **wildcards: str) -> dict[str, Path]:
        """Return the outputs of one job."""
        return {key: Path(pattern.format(**wildcards)) for key, pattern in self.outputs.items()}

    def code(self, **wildcards: str) -> list[str]:
        """Return the code of one job, and that of its plan, as `code_digest` takes it."""
        job = self.job(**wildcards)
        planned = f"{self.job.__module__}:{self.job.__qualname__.partition('.')[0]}"
        return [planned, job.function, *job.modules]

    def artifacts(self, **chosen: str) -> list[str]:
        """Return the outputs of all jobs, or of those whose wildcards have the `chosen` values."""
        return [
            str(path)
            for instance in self.instances
            if all(instance.get(name) == value for name, value in chosen.items())
            for path in self.paths(**instance).values()
        ]

    def matching(self, words: Iterable[str]) -> Iterator[Mapping[str, str]]:
        """Yield the jobs that `NAME=VALUE` or bare values of wildcards pick.

        Raises:
            R2MError: no job has such a wildcard or value, or a wildcard is given twice.
        """
        picked: dict[str, str] = {}
        for name, value in map(self._named, words):
            if name in picked:
                raise R2MError(f"{self.name}: {name} is given twice, as {picked[name]} and as {value}")
            picked[name] = value
        jobs = [one for one in self.instances if all(one[name] == value for name, value in picked.items())]
        if not jobs:
            known = {name: {one[name] for one in self.instances} for name in picked}
            unknown = [name for name, value in picked.items() if value not in known[name]]
            hint = nearest(picked[unknown[0]], known[unknown[0]]) if unknown else ""
            raise R2MError(
                f"{self.name}: no job with {', '.join(f'{k}={v}' for k, v in picked.items())}{hint}"
            )
        yield from jobs

    def _named(self, word: str) -> tuple[str, str]:
        name, separator, value = word.partition("=")
        if separator:
            if name not in self.wildcards:
                raise R2MError(f"{self.name}: unknown wildcard {name!r}{nearest(name, self.wildcards)}")
            return name, value
        for wildcard in self.wildcards:
            if word in {instance[wildcard] for instance in self.instances}:
                return wildcard, word
        known = {value for instance in self.instances for value in instance.values()}
        raise R2MError(f"{self.name}: no job for {word!r}{nearest(word, known)}")


def _paths(value: Any) -> Iterator[Path]:
    """Yield the paths in nested arguments."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _paths(part)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _paths(part)
    elif is_dataclass(value):
        for own in fields(value):
            yield from _paths(getattr(value, own.name))


def _plain(value: Any) -> Any:
    """Return nested arguments as text, numbers, lists and mappings."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {own.name: _plain(getattr(value, own.name)) for own in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
