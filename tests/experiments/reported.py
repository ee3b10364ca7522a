"""Files that experiments read, and their table and figure as the workflow makes them."""

import json

from experiment_context import CONTEXT

from r2m.evaluate.protocols import EvaluationContext
from r2m.experiments import stages
from r2m.merge.stages import read_chosen


def chosen_file(folder, chosen):
    """Write the chosen options of a variant as tuning does."""
    path = folder / f"{chosen.variant}.json"
    content = {
        "variant": chosen.variant,
        "method": chosen.method.name,
        "head": chosen.head,
        "options": chosen.options.model_dump(mode="json"),
    }
    path.write_text(json.dumps(content))
    assert read_chosen(path) == chosen
    return path


def compute(experiment, bench_files, scores, *, chosen=(), inputs=None, outputs=None, **values):
    """Write the scores of an experiment on merges as the workflow does."""
    given = {"inputs": inputs or {}, "values": values, "scores": scores, "outputs": outputs or {}}
    stages.run(experiment=experiment, **bench_files, chosen=chosen, **given)


def report(experiment, source, folder, context=CONTEXT):
    """Make the table of one seed's scores, and the figure of the table, in a folder."""
    context = EvaluationContext.model_validate(context)
    stages.table(experiment=experiment, sources=[source], context=context, out=folder / "table")
    stages.figure(experiment=experiment, table=folder / "table.csv", context=context, out=folder / "figure")
    assert {path.suffix for path in folder.glob("table.*")} == {".csv", ".md", ".tex", ".html"}
    assert {path.suffix for path in folder.glob("figure.*")} == {".png", ".pdf", ".svg"}
    assert (folder / "figure.svg").stat().st_size > 500
