"""The captions of the Snakemake report render, with and without what they mention."""

from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from docutils.core import publish_parts

CAPTIONS = sorted((Path(__file__).parents[2] / "workflow" / "report").glob("*.rst"))


class Wildcards(dict[str, str]):
    """Like Snakemake's: values as attributes and by `get`."""

    def __getattr__(self, name: str) -> str:
        return self[name]


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("wildcards", [{}, {"variant": "r2m_task", "generator": "swap"}])
def test_caption_renders(path: Path, wildcards: dict[str, str]) -> None:
    config = {
        "backbone": {"name": "vit_base", "image_size": 112},
        "generators": {"swap": {"family": "FS"}, "inp": {"family": "FE", "role": "unseen"}},
        "domains": {"celeba": {"role": "train"}, "orl": {"role": "test"}},
        "merge": {"candidates": 9} if wildcards else {},
    }
    snakemake = SimpleNamespace(config=config, wildcards=Wildcards(wildcards))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    text = environment.from_string(path.read_text(encoding="utf-8")).render(snakemake=snakemake)
    parts = publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 2})
    assert "system-message" not in parts["body"]
    if path.stem == "workflow":
        assert "swap (FS), inp (FE, unseen)." in text
