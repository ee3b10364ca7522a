"""README's commands are those that exist, and its numbers those of the results in git."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return re.findall(r"```sh\n(python3 -m venv[^\n]*)\n```", README)


def test_there_are_two_commands_for_a_fresh_machine():
    install_and_run, install_and_test = commands()
    assert install_and_run.endswith("snakemake --cores all")
    assert install_and_test.endswith("python -m pytest")


def test_ci_calls_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("pip install -q", "pip install")
    assert commands()[1] in script


def test_links_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_readme_stays_short():
    assert len(README.splitlines()) <= 130


def test_readme_counts_the_merging_methods():
    from r2m.merge import registry

    assert f"with {len(registry.names())} merging methods" in README


def test_groups_of_unseen_generators_stand_in_place_of_all(tmp_path, monkeypatch):
    from docs_pages import generator

    generate = generator()
    names = ["Model", "FS", "In distribution", "Unseen generators, old", "Unseen generators, new"]
    names += ["Unseen generators", "Unseen generators, video", "Cross-dataset"]
    cells = ["R²M", *(f"0.{place}" for place in range(1, len(names)))]
    lines = [f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), cells)]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/main.md").write_text("\n".join([*lines, "", "Mean AUC."]))
    monkeypatch.setattr(generate, "RESULTS", tmp_path)
    assert generate.results().splitlines() == [
        "| Model | In distribution | Unseen generators, old | Unseen generators, new | Cross-dataset |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| R²M | 0.2 | 0.3 | 0.4 | 0.7 |",
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/experiments.md"])
def test_numbers_are_those_of_the_results_in_git(page, tmp_path, monkeypatch):
    """Of those in git, since a run of one's own replaces the files."""
    from docs_pages import generator

    generate = generator()
    for name in ("tables/main.md", "runtimes.csv"):
        shown = subprocess.run(["git", "show", f"HEAD:results/{name}"], cwd=ROOT, capture_output=True)
        if shown.returncode:
            pytest.skip("no git, or not a clone")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(shown.stdout)
    monkeypatch.setattr(generate, "RESULTS", tmp_path)
    assert (ROOT / page).read_text(encoding="utf-8") == generate.renewed(page)
