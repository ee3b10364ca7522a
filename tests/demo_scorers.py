"""Scorers that a process of the demo loads: of drawn faces, and one that does what a file asks for."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from r2m.demo.answer import Answer
from r2m.demo.worker import Scorer, ScorerOptions
from r2m.errors import R2MError


@dataclass(frozen=True)
class DrawnOptions(ScorerOptions):
    """Options of a scorer that finds drawn faces."""

    def load(self) -> Scorer:
        # Imported here: the obedient scorer is loaded often, and needs none of this.
        from drawn_videos import DiscDetector
        from r2m.data import faces

        faces.FaceDetector = DiscDetector
        return super().load()


class Obedient:
    """Sleeps or crashes where the file says so, and tells where the file was and when it was looked at.

    Where a file is to be held, it is locked and then written, so that others can tell that this process runs.
    """

    cuts = (0.25, 0.75)

    def __call__(self, path: Path, explain: bool) -> Answer:
        begun = time.monotonic()
        match path.read_bytes().split():
            case [b"sleep", seconds]:
                time.sleep(float(seconds))
            case [b"hold", held]:
                with open(held, "w") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    print("held", file=file, flush=True)
                    time.sleep(1000)
            case [b"crash"]:
                os._exit(3)
            case [b"raise"]:
                raise RuntimeError("a mistake of the program")
        unexplained = "as it was asked for" if explain else ""
        return Answer(reason=f"{path} {begun} {time.monotonic()}", unexplained=unexplained)


@dataclass(frozen=True)
class ObedientOptions(ScorerOptions):
    """Options of a scorer that needs no detector."""

    def load(self) -> Scorer:
        return Obedient()


def obedient() -> Scorer:
    return Obedient()


def broken() -> Scorer:
    raise R2MError("model.safetensors: no such file")


if __name__ == "__main__":
    # The command itself, but for the scorer.
    import demo_scorers
    from r2m.cli import main
    from r2m.demo import worker

    worker.ScorerOptions = demo_scorers.ObedientOptions
    main()
