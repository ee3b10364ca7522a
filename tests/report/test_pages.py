import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from r2m.errors import R2MError
from r2m.report.pages import csv_table, page
from r2m.report.stages import pages

CARD = (
    "# A card\n\n| name | AUC |\n| --- | ---: |\n| a **b** <ins>c</ins> | 0.5 |\n\n```yaml\nkey: [1]\n```\n"
)


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not open, and tells what stays open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def well_formed(text: str) -> str:
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return text


def saved(text: str) -> bytes:
    """Return the file that the link of a page saves."""
    found = re.search(r'href="data:[a-z/]+;charset=utf-8;base64,([^"]*)"', text)
    assert found
    return base64.b64decode(found[1])


def test_markdown(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text(CARD)
    text = well_formed(page(tmp_path / "card.md"))
    assert "<h1>A card</h1>" in text
    assert '<th style="text-align:right">AUC</th>' in text
    assert "<td>a <strong>b</strong> <ins>c</ins></td>" in text
    assert '<pre><code class="language-yaml">key: [1]\n</code></pre>' in text
    assert 'download="card.md"' in text
    assert saved(text) == CARD.encode()


def test_csv(tmp_path: Path) -> None:
    content = 'model,auc,p,note\nr²m,0.91234567,1.2345678e-09,"a, <b> & *c*"\nx,,0.5,2\n'
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    text = well_formed(page(tmp_path / "t.csv"))
    first, second = re.findall(r"<tr>(<td.*)</tr>", text)
    number = '<td class="number">'
    assert first == f"<td>r²m</td>{number}0.9123</td>{number}1.2e-09</td><td>a, &lt;b&gt; &amp; *c*</td>"
    assert second == f"<td>x</td>{number}</td>{number}0.5</td><td>2</td>"
    assert saved(text) == content.encode()


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("12", "12"),
        ("0.5000", "0.5000"),
        ("-0.123456", "-0.1235"),
        ("0.00001234", "1.2e-05"),
        ("0.00000", "0.0000"),
    ],
)
def test_numbers_are_rounded_to_be_read(cell: str, shown: str) -> None:
    assert f'<td class="number">{shown}</td>' in csv_table(f"a\n{cell}\n")


def test_table_without_rows() -> None:
    assert well_formed(csv_table("a,b\n")).count("<th>") == 2


def test_files_are_checked(tmp_path: Path) -> None:
    for name, content in {"a.txt": b"x", "b.md": b"\xff", "c.csv": b"", "d.csv": b"a,b\n1\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(R2MError, match=name):
            page(tmp_path / name)
    with pytest.raises(R2MError, match=r"gone\.md"):
        page(tmp_path / "gone.md")
    with pytest.raises(R2MError, match=r"two files would make the page x\.html"):
        pages(sources=[tmp_path / "x.md", tmp_path / "x.csv"], out=tmp_path)


def test_a_page_for_every_file(tmp_path: Path) -> None:
    files = [tmp_path / "a.md", tmp_path / "b.csv"]
    for path in files:
        path.write_text("x\n")
    pages(sources=files, out=tmp_path / "pages")
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {"a.html", "b.html"}
