"""Synthetic files of scores: two domains, trained and unseen generators, every kind of model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2m.evaluate.protocols import EvaluationContext


@pytest.fixture
def context() -> EvaluationContext:
    return EvaluationContext.model_validate(
        {
            "generators": {
                "tps": {"family": "FR"},
                "swap": {"family": "FS", "label": "Swap_1"},
                "up": {"family": "EFS"},
                "inp": {"family": "FE", "role": "unseen"},
            },
            "domains": {"a": {"role": "train", "label": "CelebA"}, "b": {"role": "test"}},
        }
    )


@pytest.fixture
def grouped(context: EvaluationContext) -> EvaluationContext:
    """The same with three unseen generators, two of which are in a group."""
    changes = {"tps": {"role": "unseen"}, "up": {"role": "unseen", "group": "old"}, "inp": {"group": "new"}}
    generators = {
        name: known.model_copy(update=changes.get(name, {})) for name, known in context.generators.items()
    }
    return context.model_copy(update={"generators": generators})


def score_rows(rng: np.random.Generator, gaps: dict[str, float], n: int = 30) -> pd.DataFrame:
    """Scores of n reals a domain and split, and n fakes a set with means `gaps[generator]`.

    Two images of a set show the same person, whom the other sets of the domain and split have as well.
    """
    sets = [("a", "val", g) for g in ("real", "tps", "swap", "up")]
    sets += [(d, "test", g) for d in ("a", "b") for g in ("real", "tps", "swap", "up", "inp")]
    parts = []
    for domain, split, generator in sets:
        logit = rng.normal(gaps.get(generator, 0.0), 1, n)
        parts.append(
            pd.DataFrame(
                {
                    "image_id": [f"{domain}/{generator}/{split}{i}" for i in range(n)],
                    "set": domain if generator == "real" else generator,
                    "domain": domain,
                    "split": split,
                    "label": np.int8(generator != "real"),
                    "generator": generator,
                    "identity": [f"{split}{i // 2}" for i in range(n)],
                    "video": None,
                    "logit": logit.astype(np.float32),
                    "probability": (1 / (1 + np.exp(-logit))).astype(np.float32),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def write_scores(path: Path, frame: pd.DataFrame, **metadata: str | None) -> Path:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, b"r2m": json.dumps(metadata).encode()})
    pq.write_table(table, path)
    return path


@pytest.fixture
def score_files(tmp_path: Path) -> list[Path]:
    """Seven models: base, three specialists, joint and two merges."""
    gaps = {
        ("base", "base", None): {},
        ("swap", "specialist", None): {"swap": 3, "tps": 0.5, "up": -1, "inp": 1},
        ("tps", "specialist", None): {"tps": 3, "swap": 0.5, "inp": 1},
        ("up", "specialist", None): {"up": 3},
        ("joint", "joint", None): {"swap": 2, "tps": 2, "up": 2, "inp": 2},
        ("weight_averaging", "merge", "weight_averaging"): {"swap": 1, "tps": 1, "up": 1, "inp": 1},
        ("r2m", "merge", "r2m"): {"swap": 1.5, "tps": 1.5, "up": 1.5, "inp": 1.5},
    }
    return [
        write_scores(
            tmp_path / f"{name}.parquet",
            score_rows(np.random.default_rng(index), means),
            model=name,
            kind=kind,
            method=method,
            label=name.title(),
        )
        for index, ((name, kind, method), means) in enumerate(gaps.items())
    ]


@pytest.fixture
def rewrite() -> Callable[..., Path]:
    """Write changed scores over a file, with its own or other metadata."""

    def change(path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], **metadata: str | None) -> Path:
        old = json.loads(pq.read_schema(path).metadata[b"r2m"])
        return write_scores(path, edit(pq.read_table(path).to_pandas()), **(old | metadata))

    return change
