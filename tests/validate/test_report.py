import json
import re
from html.parser import HTMLParser

import jsonschema
import pandas as pd
import pytest

from indexed_images import picture
from r2m.validate.check import Check, Finding
from r2m.validate.report import aligned, compose
from r2m.validate.rows import examine
from r2m.validate.stages import run

COUNTS = {"type": "integer", "minimum": 0}
RECORDS = {"type": "array", "items": {"type": "object"}}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "version": {"const": 1},
        "index": {"type": "string"},
        "root": {"type": "string"},
        "files": COUNTS,
        "contents": {"type": "boolean"},
        "allow_leakage": {"type": "boolean"},
        "severity": {"enum": ["error", "warning", "info", None]},
        "counts": {
            "type": "object",
            "additionalProperties": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"images": COUNTS, "video_files": COUNTS, "videos": COUNTS},
                    "required": ["images", "video_files", "videos"],
                },
            },
            "required": ["generators", "families", "domains", "datasets", "splits", "labels"],
        },
        "sizes": RECORDS,
        "checks": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "severity": {"enum": ["error", "warning", "info"]},
                    "title": {"type": "string"},
                    "advice": {"type": "string"},
                    "unit": {"type": "string"},
                    "made": {"type": "boolean"},
                    "count": {"type": ["integer", "null"]},
                    "where": RECORDS,
                    "examples": {**RECORDS, "maxItems": 20},
                },
                "required": [
                    "name",
                    "severity",
                    "title",
                    "advice",
                    "unit",
                    "made",
                    "count",
                    "where",
                    "examples",
                ],
            },
        },
    },
}
SCHEMA["required"] = list(SCHEMA["properties"])


@pytest.fixture
def faulty(drawn):
    (drawn.root / "original/000/000.png").unlink()
    drawn.add("more/<b>&copy.png", picture(2), split="test", identity="000")
    drawn.add("more/wide.png", picture(900)[:40], identity="somebody")
    return drawn


class Page(HTMLParser):
    """Tags that are open, and what was seen of them."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.seen, self.attributes = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "img", "wbr"}:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def test_json(faulty, validated):
    report = validated(faulty)
    content = json.loads(report.as_json())
    jsonschema.validate(content, SCHEMA)
    assert content["severity"] == "error"
    by_name = {check["name"]: check for check in content["checks"]}
    assert by_name["missing"]["count"] == 1
    assert by_name["missing"]["examples"][0] == {
        "path": "original/000/000.png",
        "domain": "ff",
        "method": "real",
        "split": "train",
        "label": 0,
    }
    assert by_name["people_across_splits"]["examples"][0]["other_path"] == "more/<b>&copy.png"
    names_only = json.loads(validated(faulty, contents=False).as_json())
    jsonschema.validate(names_only, SCHEMA)
    assert not names_only["contents"]
    unmade = {check["name"] for check in names_only["checks"] if not check["made"]}
    assert "unreadable" in unmade
    assert "missing" not in unmade


def test_json_is_the_same_every_time(faulty, validated):
    assert validated(faulty).as_json() == validated(faulty).as_json()


def test_counts(drawn, validated):
    drawn.add("cdf/clip.mp4", b"", media="video", video="clip", domain="cdf", split="test", dataset="Other")
    counts = json.loads(validated(drawn, contents=False).as_json())["counts"]
    keys = ("domain", "method", "family", "label", "split", "images", "video_files", "videos")
    rows = [tuple(row[key] for key in keys) for row in counts["generators"]]
    assert ("ff", "swap", "FS", 1, "train", 4, 0, 2) in rows
    assert ("cdf", "real", "real", 0, "test", 0, 1, 1) in rows
    assert counts["labels"] == [
        {"label": 0, "images": 12, "video_files": 1, "videos": 7},
        {"label": 1, "images": 12, "video_files": 0, "videos": 6},
    ]
    assert sum(row["images"] for row in counts["splits"]) == 24
    assert [row["dataset"] for row in counts["datasets"][-1:]] == ["Other"]


def test_text(faulty, validated):
    lines = validated(faulty).as_text().splitlines()
    assert lines[0] == f"{faulty.index}: 26 files below {faulty.root}"
    assert "domain  method  family  label  train  train videos  val  val videos  test  test videos" in lines
    assert "error: Files that are not there: 1 file" in lines
    assert any("such as original/000/000.png (domain ff, method real" in line for line in lines)
    assert re.fullmatch(r"2 errors, \d warnings?", lines[-1])
    assert "files were not opened" in validated(faulty, contents=False).as_text()


def test_page(faulty):
    faulty.write()
    options = {"contents": True, "allow_leakage": False, "cache": faulty.cache, "threads": 1}
    report, html = run(faulty.index, None, **options)
    page = Page(html)
    assert page.stack == []
    assert "http" not in html.lower().replace("<html", "")
    assert "more/<wbr>&lt;b&gt;&amp;copy.png" in html
    for result in report.found():
        assert f'id="{result.check.name}"' in html
        assert result.check.advice.partition("`")[0].split("'")[0] in html
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) > 12
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    _, plain = run(faulty.index, None, **options | {"contents": False})
    assert "<img" not in plain
    assert "not made" in plain


def test_a_further_check_is_a_function_and_an_entry(drawn):
    def tall(frame):
        return Finding(int((frame["height"] > 10).sum()))

    check = Check("tall", "info", "Tall images", "None.", ("file", "files"), tall, needs_contents=True)
    frame = examine(drawn.write(), drawn.root, contents=True, cache=drawn.cache, threads=1)
    report = compose(frame, "i", "r", has_contents=True, allow_leakage=False, checks=[check])
    assert [(result.check.name, result.count) for result in report.found()] == [("tall", 24)]
    assert "info: Tall images: 24 files" in report.as_text()


def test_tables_are_aligned():
    table = pd.DataFrame({"name": ["a", "long"], "files": [1234, 5], "share": [0.5, 1.0]})
    assert aligned(table) == ["name  files  share", "a     1,234    0.5", "long      5      1"]
