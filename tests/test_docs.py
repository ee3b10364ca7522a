"""What the documentation says exists, and its examples do what it says."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from clip_samples import openai_state, timm_state
from docs_pages import (
    PAGES,
    ROOT,
    anchors,
    code_spans,
    commands,
    example,
    fences,
    generator,
    module_from,
    updated,
)

EXTENDING = "docs/extending.md"
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"


def with_example(text: str, params=None) -> dict:
    """The params with an example put in; domains are replaced, and experiments left out that know them."""
    change = yaml.safe_load(f"generators:\n{text}" if text.startswith("  ") else text)
    given = {key: value for key, value in (params or PARAMS).items() if key != "experiments"}
    if "domains" in change:
        del given["domains"]
    return updated(given, change)


# Links


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


def test_all_pages_are_listed_in_the_readme():
    listed = set(re.findall(r"\]\((docs/\w[\w-]*\.md)\)", PAGES["README.md"]))
    assert listed == PAGES.keys() - {"README.md"}


# What follows from the code


@pytest.mark.parametrize("page", ["docs/merging.md", "docs/reference.md"])
def test_generated_parts_are_current(page):
    """`python docs/generate.py` writes them."""
    assert PAGES[page] == generator().renewed(page)


@pytest.mark.parametrize("text", ["S\nE\nS\nE\n", "S\n", "E\nS\n", "no marker"])
def test_markers_stand_once_and_in_order(tmp_path, monkeypatch, text):
    module = generator()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "GENERATED", {"page.md": {"x": lambda: "new"}})
    marked = text.replace("S", "<!-- generated: x -->").replace("E", "<!-- end: x -->")
    (tmp_path / "page.md").write_text(marked)
    with pytest.raises(ValueError, match=r"page\.md: <!-- \w+: x --> stands there"):
        module.renewed("page.md")


def test_generated_parts_of_results_stand_once():
    for page in ("README.md", "docs/experiments.md"):
        for name in generator().GENERATED[page]:
            assert PAGES[page].count(f"<!-- generated: {name} -->") == 1


def test_every_section_of_params_is_in_the_reference():
    from r2m.params import Params

    for name in Params.model_fields:
        assert f"`{name}`" in PAGES["docs/reference.md"] or f"`{name}.NAME`" in PAGES["docs/reference.md"], (
            name
        )
    for name in PARAMS["experiments"]:
        assert f"`experiments.{name}`" in PAGES["docs/reference.md"]


def test_every_experiment_is_described():
    from r2m.experiments import registry

    assert set(registry.names()) == set(PARAMS["experiments"])
    for name in registry.names():
        assert f"| [`{name}`]" in PAGES["docs/experiments.md"], name


def test_every_stage_is_in_the_reference_with_its_first_artifact():
    from r2m.params import load
    from r2m.workflow import Workflow

    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGES["docs/reference.md"], re.MULTILINE)
    described = dict(rows)
    for name, stage in Workflow(load(ROOT / "params.yaml")).main.items():
        first = next(iter(stage.outputs.values()))
        parts = [first, *(str(parent) for parent in Path(first).parents)]
        suffixes = [first.rpartition(".")[0] + suffix for suffix in (".svg", ".png")]
        assert name in described, name
        assert any(f"`{path}`" in described[name] for path in [*parts[:-1], *suffixes]), name


def test_paths_of_results_are_those_that_stages_make():
    from r2m.params import load
    from r2m.workflow import UNMANAGED, Workflow

    run = Workflow(load(ROOT / "params.yaml"))
    stages = (*run.stages.values(), run.code)
    made = {Path(path) for stage in stages for path in stage.artifacts()}
    known = made | {parent for path in made for parent in path.parents}
    for page in PAGES:
        for text in code_spans(page):
            path = Path(text)
            if not re.fullmatch(r"results/[\w/.]+", text) or "NAME" in text or "seedN" in text:
                continue
            assert path in known or path.parts[1] in UNMANAGED, f"{page}: {text}"


def test_detector_metadata_are_in_the_reference():
    from r2m.models.config import DetectorConfig

    for name in DetectorConfig.model_fields:
        assert f"`{name}`" in PAGES["docs/reference.md"], name


def test_public_names_are_in_the_reference():
    import r2m

    for name in set(r2m.__all__) - {"__version__"}:
        assert f"`r2m.{name}" in PAGES["docs/reference.md"], name


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_use_names_that_exist(page):
    import r2m
    from r2m.models.image_detector import ImageDetector

    for block in fences(page, "python"):
        if not block.startswith(" "):  # an entry of a mapping or list, alone
            compile(block, page, "exec")
        for name in re.findall(r"\br2m\.(\w+)\(", block):
            assert name in r2m.__all__, name
        for name in re.findall(r"\bdetector\.(\w+)\(", block):
            assert hasattr(ImageDetector, name), name


# Commands


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page):
    import click

    from r2m.cli import r2m

    spans = [text for text in code_spans(page) if text.startswith("r2m ")]
    with click.Context(r2m) as context:
        known = {name: r2m.get_command(context, name) for name in r2m.list_commands(context)}
    for line in [*commands(page), *spans]:
        words = line.split()
        if words[0] != "r2m" or len(words) < 2 or words[1].startswith("-"):
            continue
        command = known.get(words[1])
        assert command is not None, f"{page}: {line}"
        options = {option for param in command.params for option in param.opts} | {"--help"}
        given = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
        assert set(given) <= options, f"{page}: {line}"


def test_options_named_on_the_page_of_merging_are_those_of_its_commands():
    from r2m.cli.inspect import command as inspect
    from r2m.cli.merge import command as merge

    known = {option for command in (merge, inspect) for param in command.params for option in param.opts}
    named = [span.split()[0] for span in code_spans("docs/merging.md") if span.startswith("--")]
    assert named
    assert set(named) <= known


def test_jobs_in_examples_exist():
    from r2m.params import load
    from r2m.workflow import Workflow

    stages = Workflow(load(ROOT / "params.yaml")).stages
    jobs = [line.split()[2:] for page in PAGES for line in commands(page) if line.startswith("r2m job ")]
    assert jobs
    for stage, *words in jobs:
        assert list(stages[stage].matching(words)), (stage, words)


@pytest.mark.parametrize("page", ["README.md", "docs/merging.md"])
def test_examples_of_merging_run(page, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import save_file

    from r2m.cli import r2m

    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    shapes = {"blocks.0.fc1.weight": (64, 64), "blocks.1.fc1.weight": (64, 32)}
    shapes |= {"head.weight": (1, 32), "head.bias": (1,)}

    def near(weights, scale):
        return {
            key: one + scale * torch.randn(one.shape, generator=generator) for key, one in weights.items()
        }

    base = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    shared = near(base, 0.03)
    save_file(base, "clip.safetensors")
    Path("tuned").mkdir()
    for name in ("swap", "lip"):
        save_file(near(shared, 0.03), f"{name}.safetensors")
        shutil.copy(f"{name}.safetensors", "tuned")
    torch.save({"state_dict": near(shared, 0.03)}, "up.pt")
    save_file(timm_state(), "vit_clip.safetensors")
    save_file(openai_state(1), "swap_openclip.safetensors")
    save_file(timm_state(grid=4, seed=2), "lip_larger.safetensors")
    recipes = [block for block in fences(page, "yaml") if block.startswith("method:")]
    names = dict.fromkeys(name for line in commands(page) for name in re.findall(r"--recipe (\S+)", line))
    for name, block in zip(names, recipes, strict=True):
        Path(name).write_text(block, encoding="utf-8")
    merges = 0
    for line in commands(page):
        words = shlex.split(line)
        if words[0] != "r2m" or words[1] == "detect":
            continue
        if words[1] == "merge":
            merges += 1
            for path in (*Path().glob("merged.*"), *Path().glob("other.*")):
                path.unlink()
        if words[1] == "inspect" and not Path("merged.safetensors").exists():
            save_file(shared, "merged.safetensors")
        result = CliRunner().invoke(r2m, words[1:], catch_exceptions=False)
        differing = words[1] == "diff" and result.exit_code == 1
        assert differing or result.exit_code == 0, (line, result.output)
    assert merges


# params.yaml


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, i) for page in PAGES if page != EXTENDING for i in range(len(fences(page, "yaml")))],
)
def test_yaml_examples_are_valid(page, number):
    from r2m.merge.recipe import build
    from r2m.params import parse

    text = fences(page, "yaml")[number]
    if "method:" in text.splitlines()[0]:
        build(yaml.safe_load(text), page).resolved()
    else:
        parse(with_example(text))


def test_generator_example_is_valid_and_three_lines():
    from r2m.forge.options import GeneratorOptions

    text = re.search(r"```yaml\n(  mygan:.*?)```", PAGES["docs/data.md"], re.DOTALL)
    assert text is not None
    assert len(text[1].strip().splitlines()) == 3
    ((name, options),) = yaml.safe_load(text[1]).items()
    assert name == "mygan"
    GeneratorOptions.model_validate(options)


def test_recipe_example_is_valid():
    from r2m.merge.recipe import build

    for text in fences("docs/merging.md", "yaml"):
        if text.startswith("method:"):
            asked = build(yaml.safe_load(text), "merging.md")
            asked.resolved()
            asked.resolved_rules()


# Extensions

CHECKED = """
import json, sys
from pathlib import Path
import yaml
{before}
from r2m.params import parse
from r2m.workflow import Workflow
stages = Workflow(parse(yaml.safe_load(Path({params!r}).read_text(encoding="utf-8")))).stages
print(json.dumps({{name: stage.artifacts() for name, stage in stages.items()}}))
"""


def stages_with(before: str, params: dict, folder: Path) -> dict[str, list[str]]:
    """Return stage → artifacts of params in an interpreter of its own, where something is added `before`."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    script = CHECKED.format(before=before, params=str(path))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def params_of_example(key: str, start: str, params: dict | None = None) -> dict:
    """Return params with the example of extending.md that has `key` under a section."""
    (text,) = [block for block in fences(EXTENDING, "yaml") if block.startswith(start) and key in block]
    return with_example(text, params)


def test_method_example_merges(tmp_path, monkeypatch):
    import torch

    from r2m.merge import methods, registry
    from r2m.merge.merging import merge

    (tmp_path / "clipped_mean.py").write_text(
        example(EXTENDING, "python", '"""Clipped mean'), encoding="utf-8"
    )
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
        sys.modules.pop("r2m.merge.methods.clipped_mean", None)
    torch.testing.assert_close(update["w"], torch.tensor([1e-3, -4e-4]))
    before = f"from r2m.merge import methods\nmethods.__path__.append({str(tmp_path)!r})"
    made = stages_with(before, params_of_example("clipped_mean", "merge:"), tmp_path)
    assert "results/merged/clipped_mean/seed0/model.safetensors" in made["merge"]


def test_forgery_example_forges(tmp_path):
    import numpy as np

    from r2m.forge.registry import Face

    text = example(EXTENDING, "python", '"""Face editing (FE): a part')
    (tmp_path / "mosaic.py").write_text(text, encoding="utf-8")
    mosaic = module_from(tmp_path / "mosaic.py", "mosaic_example").mosaic
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    landmarks = np.array([[38, 45], [74, 45], [56, 65], [42, 85], [70, 85]], dtype=np.float32)
    forged = mosaic(Face(image, landmarks), None, random, cells=12.0)
    assert (forged.shape, forged.dtype) == (image.shape, image.dtype)
    assert (forged[80:90, 50:60] != image[80:90, 50:60]).any()
    assert (forged[:40] == image[:40]).all()
    before = f"from r2m.forge import forgeries\nforgeries.__path__.append({str(tmp_path)!r})"
    made = stages_with(before, params_of_example("mosaic", "generators:"), tmp_path)
    assert "results/forged/mosaic/manifest.parquet" in made["forge"]


def test_perturbation_example_perturbs(tmp_path, monkeypatch):
    import numpy as np

    from r2m.data import perturbations

    text = example(EXTENDING, "python", "@perturbation")
    monkeypatch.setattr(perturbations, "PERTURBATIONS", dict(perturbations.PERTURBATIONS))
    code = f"from __future__ import annotations\n{text}"
    exec(code, dict(vars(perturbations)))
    image = np.full((4, 4, 3), 64, np.uint8)
    darker = perturbations.perturbed(image, "gamma", 2.0, 0, "a")
    assert darker.dtype == np.uint8
    assert (darker == 16).all()
    before = f"from r2m.data import perturbations\nexec({code!r}, vars(perturbations))"
    made = stages_with(before, params_of_example("gamma", "experiments:"), tmp_path)
    assert "results/experiments/robustness/seed0/scores.parquet" in made["robustness"]


def test_experiment_example_runs(tmp_path, monkeypatch, image_sets, trunk_files, base_files, one_thread):
    import pandas as pd
    import torch

    from detector_samples import VIT
    from r2m.evaluate.protocols import EvaluationContext, read_table
    from r2m.experiments import stages
    from r2m.models import checkpoint
    from r2m.report.figures.style import save
    from r2m.session_files import Compute, MergeParts, SessionFiles

    text = example(EXTENDING, "python", '"""How far each merge moves')
    (tmp_path / "moves.py").write_text(text, encoding="utf-8")
    before = f"import r2m.experiments\nr2m.experiments.__path__.append({str(tmp_path)!r})"
    params = params_of_example("moves", "experiments:")
    made = stages_with(before, params, tmp_path)
    assert made["moves"] == ["results/experiments/moves/seed0/scores.parquet"]
    assert "results/experiments/moves/figure.svg" in made["figure_moves"]

    base, metadata = checkpoint.load(base_files["vit"])
    generator = torch.Generator().manual_seed(0)
    trained = [name for name in base if name.startswith(("blocks.4.", "blocks.5.", "norm."))]
    vectors, heads = {}, {}
    for name in ("swap", "up"):
        vectors[name], heads[name] = tmp_path / f"{name}.vector", tmp_path / f"{name}.head"
        vector = {key: 0.05 * torch.randn(base[key].shape, generator=generator) for key in trained}
        head = {"head.weight": torch.randn(1, 64, generator=generator), "head.bias": torch.zeros(1)}
        checkpoint.save(vectors[name], vector, metadata)
        checkpoint.save(heads[name], head, metadata)
    chosen = tmp_path / "chosen.json"
    options = {"method": "task_arithmetic", "head": "average", "options": {"scaling": 0.5}}
    chosen.write_text(json.dumps({"variant": "half", **options}), encoding="utf-8")
    sets = tuple(image_sets.manifests)
    module = module_from(tmp_path / "moves.py", "moves_example")
    monkeypatch.setitem(sys.modules, "r2m.experiments.moves", module)
    scores = tmp_path / "scores.parquet"
    stages.run(
        experiment="moves",
        files=SessionFiles(
            tuple(image_sets.paths(*sets)), tuple(trunk_files[name] for name in sets), base_files["vit"]
        ),
        parts=MergeParts(vectors, heads, base_files["vit"].parent / "initial_head.safetensors"),
        chosen=[chosen],
        compute=Compute(VIT, "cpu", "fp32"),
        inputs={},
        values={},
        scores=scores,
        outputs={},
        threads=1,
    )
    context = EvaluationContext.model_validate(
        {"generators": {}, "domains": {}, "variants": {"half": "Half"}}
    )
    table = module.table(scores, context)
    tensors = [checkpoint.load(path)[0] for path in vectors.values()]
    squared = sum(float((0.5 * sum(one[key] for one in tensors)).norm()) ** 2 for key in trained)
    assert table.frame["distance"].pow(2).sum() == pytest.approx(squared, rel=1e-4)
    assert list(table.frame["block"]) == ["blocks.4", "blocks.5", "other"]
    assert list(pd.unique(table.frame["merge"])) == ["Half"]
    table.write(tmp_path / "table")
    save(module.figure(read_table(tmp_path / "table.csv"), context), tmp_path / "figure")
    assert (tmp_path / "figure.svg").stat().st_size > 0


def test_metric_example_measures():
    import numpy as np

    from r2m.evaluate import metrics

    text = example(EXTENDING, "python", '    "brier"')
    metric = eval(f"{{{text}}}", {**vars(metrics), "np": np})["brier"]
    predictions = metrics.Predictions(
        np.array([0, 1]), np.array([-1.0, 1.0]), np.array([0.25, 0.5]), threshold=0.0
    )
    assert metric.compute(predictions) == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert not metric.greater_is_better


def test_head_example_is_a_head(tmp_path, monkeypatch):
    import torch

    from r2m.models import heads
    from r2m.params import parse

    monkeypatch.setattr(heads, "HEADS", dict(heads.HEADS))
    exec(example(EXTENDING, "python", "class NormedHead"), vars(heads).copy() | {"HEADS": heads.HEADS})
    normed = heads.head_type("normed")
    head = normed(8, 2)
    initial = normed.initial(8, 2, torch.Generator().manual_seed(0))
    head.load_state_dict(normed.average([initial, initial]))
    x = 5 + 3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(x), head(10 * x), rtol=1e-4, atol=1e-5)
    fitted = normed.fitted(initial["weight"], initial["bias"])
    head.load_state_dict(fitted)
    torch.testing.assert_close(head(x), normed.linear_features(x) @ initial["weight"].T + initial["bias"])
    parse(params_of_example("normed", "backbone:"))
