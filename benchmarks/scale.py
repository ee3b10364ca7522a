"""What DF40 costs with CLIP ViT-L/14: jobs, GPU hours and gigabytes, by the number of specialists.

    python benchmarks/scale.py --trained 250 --scored 800

The jobs are counted in the plan of `params/df40.yaml`; its images follow from the number of videos.
`--trained` and `--scored` are images a second on one GPU: measure yours with
`benchmarks/training.py --device cuda --setting large`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r2m.options import combinations, read_yaml
from r2m.params import Params, parse
from r2m.workflow import Workflow

CONFIGURATION = Path(__file__).parents[1] / "params/df40.yaml"
# Videos of FaceForensics++ by its official split, as many real ones as of each method; the real ones of
# Celeb-DF's test list, and about so many fakes of each method; what an unknown method brings.
TRAIN, VAL, TEST = 720, 140, 140
CELEB_REAL, CELEB_FAKE, UNKNOWN = 178, 340, 500
GIGABYTES = 303_179_776 * 4 / 1e9  # the image tower of CLIP ViT-L/14 in fp32
# Stages whose every job writes one whole checkpoint.
WHOLE = ("base", "finetune", "task_vector", "joint", "merge", "real_component")
HOUR = 3600


@dataclass(frozen=True)
class Cost:
    """Of a whole run."""

    specialists: int
    jobs: int
    training: float
    tuning: float
    scoring: float
    gigabytes: float

    @property
    def row(self) -> str:
        """The row of the table."""
        hours = (self.training, self.tuning, self.scoring, self.training + self.tuning + self.scoring)
        shown = " | ".join(f"{hour:.1f}" for hour in hours)
        return f"| {self.specialists} | {self.jobs} | {shown} | {self.gigabytes:.0f} |"


def params_with(specialists: int) -> Params:
    """Return the configuration with a specialist per family (3), or per generator, some of them unseen."""
    content = read_yaml(CONFIGURATION)
    if specialists > 3:
        content["specialists"]["per"] = "generator"
        trained = [name for name, one in content["generators"].items() if one.get("role") != "unseen"]
        for name in spread(trained, len(trained) - specialists):
            content["generators"][name]["role"] = "unseen"
    content["experiments"] = {}
    return parse(content)


def spread(names: Sequence[str], count: int) -> list[str]:
    """Return `count` of the names, evenly over the list."""
    return [names[place * len(names) // count] for place in range(count)]


def cost(specialists: int, trained: float, scored: float) -> Cost:
    """Return what a run costs at so many images a second."""
    params = params_with(specialists)
    stages = Workflow(params).stages
    frames = params.finetune.frames_per_video or 8
    generators = len(params.train_generators)
    unknown = sum(options.role == "unseen" for options in params.generators.values()) - (31 - generators)
    fakes, epochs = generators * TRAIN * frames, params.finetune.epochs or 1
    val = (generators + 1) * VAL * frames
    test = frames * (32 * TEST + CELEB_REAL + 31 * CELEB_FAKE + unknown * UNKNOWN)
    # Joint training draws every fake in as many epochs; both train a real beside each.
    steps = 2 * epochs * fakes * 2
    validated = 2 * epochs * fakes / (params.finetune.pairs * params.finetune.validate_every) * val
    candidates = sum(len(combinations(one.tune)) for one in params.merge.methods.values() if one.enabled)
    models = len(stages["score"].instances) + 1
    gigabytes = GIGABYTES * sum(len(stages[name].instances) for name in WHOLE)
    return Cost(
        specialists=len(params.specialist_members),
        jobs=sum(len(stage.instances) for stage in stages.values()),
        training=(steps / trained + validated / scored) / HOUR,
        tuning=candidates * val / scored / HOUR,
        scoring=models * (val + test) / scored / HOUR,
        gigabytes=gigabytes,
    )


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trained", type=float, required=True, metavar="N", help="images a second")
    parser.add_argument("--scored", type=float, required=True, metavar="N", help="images a second")
    parser.add_argument("--specialists", type=int, nargs="+", default=[3, 13, 31], metavar="N")
    arguments = parser.parse_args()
    columns = ("specialists", "jobs", "training", "tuning", "scoring", "all, GPU hours", "checkpoints, GB")
    print(f"| {' | '.join(columns)} |\n|{'--:|' * len(columns)}")
    for specialists in arguments.specialists:
        print(cost(specialists, arguments.trained, arguments.scored).row, flush=True)


if __name__ == "__main__":
    main()
