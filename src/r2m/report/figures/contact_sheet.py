"""Contact sheet of one generator: some fakes, the reals they were made from, and where they differ."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r2m.data.images import Image, read_crop

GAIN = 4


def draw_contact_sheet(
    fakes: pd.DataFrame, reals: pd.DataFrame, label: str, stream: np.random.Generator, n: int = 8
) -> Figure:
    """Draw `n` fakes of the manifest `fakes` at random, as evenly over its domains as can be.

    The title is the generator's `label`, with its family.

    Fakes with a source among `reals` stand below it and above the difference, four times enlarged; without
    any such pair there is one row.
    """
    shown = draw(fakes[fakes["label"] == 1], stream, n)
    sources = reals.set_index("image_id")["path"]
    paired = shown[shown["source_image"].isin(sources.index)]
    images = [read_crop(Path(path)) for path in (shown if paired.empty else paired)["path"]]
    rows = {"fake": images}
    if not paired.empty:
        originals = [
            of_size(read_crop(Path(sources[source])), fake)
            for source, fake in zip(paired["source_image"], images, strict=True)
        ]
        rows = {"real": originals, "fake": images, f"|difference| × {GAIN}": differences(originals, images)}
    return grid(rows, f"{label} ({shown['family'].iloc[0]})", n)


def draw(fakes: pd.DataFrame, stream: np.random.Generator, n: int) -> pd.DataFrame:
    """Return `n` rows at random (or all), taking turns among the domains, domain by domain."""
    shuffled = fakes.iloc[stream.permutation(len(fakes))]
    turn = shuffled.groupby("domain").cumcount()
    chosen = shuffled.assign(turn=turn).sort_values(["turn", "domain"], kind="stable").head(n)
    return chosen.sort_values(["domain", "image_id"]).drop(columns="turn")


def of_size(real: Image, fake: Image) -> Image:
    """Return a real in the size of its fake, for crops that are read where they lie may differ."""
    if real.shape == fake.shape:
        return real
    return cv2.resize(real, fake.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def differences(reals: list[Image], fakes: list[Image]) -> list[Image]:
    """Return |fake − real| of each pair, enlarged by `GAIN` and clipped."""
    pairs = zip(reals, fakes, strict=True)
    return [
        np.clip(GAIN * np.abs(fake.astype(np.int16) - real), 0, 255).astype(np.uint8) for real, fake in pairs
    ]


def grid(rows: dict[str, list[Image]], title: str, columns: int) -> Figure:
    """Return a figure with one row of BGR images for each entry of `rows`, its name at the left."""
    side, left, top = 1.0, 0.32, 0.34
    width, height = left + columns * side, top + len(rows) * side
    figure = Figure(figsize=(width, height))
    for r, (name, images) in enumerate(rows.items()):
        for c, image in enumerate(images):
            box = (left + c * side) / width, 1 - (top + (r + 1) * side) / height
            axes: Axes = figure.add_axes((*box, 0.97 * side / width, 0.97 * side / height))
            axes.imshow(image[:, :, ::-1], interpolation="nearest")
            axes.set_axis_off()
        centre = 1 - (top + (r + 0.515) * side) / height
        figure.text(0.45 * left / width, centre, name, rotation=90, ha="center", va="center", fontsize=8)
    figure.text(
        left / width, 1 - 0.5 * top / height, title, ha="left", va="center", fontsize=10, weight="bold"
    )
    return figure
