"""The captions of the Snakemake report render, with and without what they mention."""

import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from docutils.core import publish_parts

from r2m.experiments import registry

ROOT = Path(__file__).parents[2]
PATHS = {path.stem: path for path in sorted((ROOT / "workflow" / "report").glob("*.rst"))}
# The caption of an experiment stands in its module, and its file shows the rule's param.
CAPTIONS = {name: (PATHS["experiment"], registry.get(name).caption) for name in registry.names()} | {
    name: (path, "") for name, path in PATHS.items() if name != "experiment"
}


class Wildcards(dict[str, str]):
    """Like Snakemake's: values as attributes and by `get`."""

    def __getattr__(self, name: str) -> str:
        return self[name]


@pytest.mark.parametrize(("path", "caption"), CAPTIONS.values(), ids=CAPTIONS)
@pytest.mark.parametrize("wildcards", [{}, {"variant": "r2m_task", "generator": "swap"}])
def test_caption_renders(path: Path, caption: str, wildcards: dict[str, str]) -> None:
    config = {
        "backbone": {"name": "vit_base", "image_size": 112},
        "generators": {"swap": {"family": "FS"}, "inp": {"family": "FE", "role": "unseen"}},
        "domains": {"celeba": {"role": "train"}, "orl": {"role": "test"}},
        "merge": {"candidates": 9} if wildcards else {},
    }
    snakemake = SimpleNamespace(
        config=config, wildcards=Wildcards(wildcards), params=SimpleNamespace(caption=caption)
    )
    # As Snakemake renders them, but for what is undefined.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(path.read_text(encoding="utf-8")).render(snakemake=snakemake)
    parts = publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 2})
    assert "system-message" not in parts["body"]
    assert parts["body"].strip()
    if path.stem == "workflow":
        assert "<li>Generators: swap (FS), inp (FE, unseen).</li>" in parts["body"].replace(
            "<p>", ""
        ).replace("</p>", "")


@pytest.mark.parametrize(
    ("path", "caption"),
    [texts for name, texts in CAPTIONS.items() if name != "workflow"],
    ids=[name for name in CAPTIONS if name != "workflow"],
)
def test_caption_says_what_to_look_at(path: Path, caption: str) -> None:
    text = caption or path.read_text(encoding="utf-8")
    assert re.search(r"\b([Ll]ook|[Rr]ead|[Cc]ompare)\b", text)


def test_every_caption_is_used() -> None:
    folders = {"workflow/rules": "*.smk", "src/r2m": "workflow.py", "src/r2m/plan": "*.py"}
    files = [
        ROOT / "Snakefile",
        *(path for folder, name in folders.items() for path in (ROOT / folder).glob(name)),
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    unused = [name for name, path in PATHS.items() if f'"{name}"' not in text and path.name not in text]
    assert unused == []
