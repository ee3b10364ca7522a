"""Miniature data sets of a few bytes a file, as they lie on users' disks."""

import json
from pathlib import Path

from r2m.index import build
from r2m.index.expand import expand

FRAMES = ("000.png", "012.png", "100.png")


def put(root, *files):
    """Write files with their own path as content."""
    for file in files:
        path = Path(root, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(file), encoding="utf-8")


def video(root, folder, frames=FRAMES):
    """Write the frames of one video."""
    put(root, *(f"{folder}/{frame}" for frame in frames))


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def ff_lists(folder, train, val, test):
    """Write the official lists: pairs such as `000_003`."""
    for name, pairs in {"train": train, "val": val, "test": test}.items():
        write_json(folder / f"{name}.json", [pair.split("_") for pair in pairs])


def indexed(*paths, **options):
    """Build an index; return its rows as a data frame, and what was left out."""
    built = build.build(build.Request(paths=[Path(path) for path in paths], **options))
    frame = expand(built.placed, built.root).to_pandas()
    for column in frame.select_dtypes("category"):
        frame[column] = frame[column].astype(object)
    return frame.astype({"path": object}), built.skipped


def row(frame, path):
    """Return the row of one file."""
    rows = frame[frame["path"] == path]
    assert len(rows) == 1, sorted(frame["path"])
    return rows.iloc[0]


def reasons(skipped):
    """Return reason → number of files."""
    totals = {}
    for item in skipped:
        totals[item.reason] = totals.get(item.reason, 0) + item.files
    return totals


def df40(root):
    """Make a DF40 tree with every layout and name variant."""
    for pair in ("000_003", "003_000", "001_870", "870_001"):
        video(root, f"simswap/ff/frames/{pair}")
        video(root, f"MRAA/ff/frames/{pair}")
    video(root, "simswap/cdf/frames/id0_id16_0003")
    for person in ("000", "003"):
        video(root, f"StyleGAN3/ff/{person}", ["seed0001.png", "seed0002.png"])
    video(root, "StyleGAN3/cdf/Fake_from_Celeb-real/id0_0001")
    video(root, "StyleGAN3/cdf/Fake_from_Youtube-real/00012")
    video(root, "sd2.1/ff/000", ["Celeb-real_id13_0011_045.png"])
    put(root, "stargan/fake/fake/000012.jpg", "stargan/real/real/000012.jpg")
    put(root, "StarGAN2/fake/a.jpg", "StarGAN2/real/b.jpg")
    put(root, "Whichisreal/Whichisreal/fake/1.jpeg", "Whichisreal/Whichisreal/real/2.jpeg")
    video(root, "deepfacelab/fake/frames/0001_fake")
    video(root, "deepfacelab/real/frames/0001")
    video(root, "heygen/heygen_new/fake/frames/v1")
    video(root, "heygen/heygen_new/real/v1")
    return root
