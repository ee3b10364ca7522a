"""Everything that `params.yaml` may hold, as pydantic models; the JSON schema is generated from them."""

from r2m.params.experiments import (
    AblationOptions,
    ComposabilityOptions,
    Experiment,
    ExperimentsOptions,
    FamiliesOptions,
    HeadsOptions,
    HostileOptions,
    RationaleOptions,
    RobustnessOptions,
    SimilarityOptions,
    SourcesOptions,
)
from r2m.params.reading import load, parse, read_yaml, with_floats
from r2m.params.section import FAMILIES, Name, Positive, Section, nearest
from r2m.params.sections import (
    AugmentOptions,
    BackboneOptions,
    FacesOptions,
    FileSource,
    FinetuneOptions,
    FolderSource,
    GeneratorOptions,
    MergeOptions,
    MergeVariant,
    PackageSource,
)
from r2m.params.whole import Params

__all__ = [
    "FAMILIES",
    "AblationOptions",
    "AugmentOptions",
    "BackboneOptions",
    "ComposabilityOptions",
    "Experiment",
    "ExperimentsOptions",
    "FacesOptions",
    "FamiliesOptions",
    "FileSource",
    "FinetuneOptions",
    "FolderSource",
    "GeneratorOptions",
    "HeadsOptions",
    "HostileOptions",
    "MergeOptions",
    "MergeVariant",
    "Name",
    "PackageSource",
    "Params",
    "Positive",
    "RationaleOptions",
    "RobustnessOptions",
    "Section",
    "SimilarityOptions",
    "SourcesOptions",
    "load",
    "nearest",
    "parse",
    "read_yaml",
    "with_floats",
]
