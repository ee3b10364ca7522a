"""README's commands and links are those that exist."""

import re
from pathlib import Path

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


def test_generator_example_is_valid_and_three_lines():
    import yaml

    from r2m.forge.options import GeneratorOptions

    example = re.search(r"```yaml\n(  mygan:.*?)```", README, re.DOTALL)
    assert example is not None
    assert len(example[1].strip().splitlines()) == 3
    ((name, options),) = yaml.safe_load(example[1]).items()
    assert name == "mygan"
    GeneratorOptions.model_validate(options)


def test_method_example_merges(tmp_path, monkeypatch):
    import torch

    from r2m.merge import methods, registry
    from r2m.merge.merging import merge

    example = re.search(r"```python\n(\"\"\"Clipped.*?)```", README, re.DOTALL)
    assert example is not None
    (tmp_path / "clipped_mean.py").write_text(example[1], encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    registry.names.cache_clear()
    registry.get.cache_clear()
    try:
        method = registry.get("clipped_mean")
        update, _ = merge(method, {"a": {"w": torch.tensor([1.0, -4e-4])}}, method.options())
    finally:
        monkeypatch.undo()
        registry.names.cache_clear()
        registry.get.cache_clear()
    torch.testing.assert_close(update["w"], torch.tensor([1e-3, -4e-4]))


def test_recipe_example_is_valid():
    import yaml

    from r2m.merge.recipe import build

    example = re.search(r"```yaml\n(method:.*?)```", README, re.DOTALL)
    assert example is not None
    build(yaml.safe_load(example[1]), "README").resolved()
