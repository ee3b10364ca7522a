"""Which faces of a video's frames are one: linked by overlap, or by nearness where a face has moved on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# (N, 4) of left edge, top edge, width and height, in pixels.
Boxes = NDArray[np.float32]
# (index of the frame, index of the face on it), by frame.
Track = list[tuple[int, int]]

# A face is found again at most so many of its widths away, farther for every second that it was not looked at
# but no farther than that, and at most so much larger or smaller.
REACH, SPEED, FARTHEST, GROWTH = 1.0, 1.0, 3.0, 2.0
# Tracks of fewer frames than this share are passers-by or false detections; so many frames are always enough.
LEAST_SHARE, ENOUGH = 0.25, 8


def tracks(boxes: Sequence[Boxes], seconds: Sequence[float]) -> list[Track]:
    """Return the tracks of the faces that are at `boxes` of each frame, in the order of their first frames.

    `seconds` is when each frame is shown.

    Every face is in one track, and no track has two faces of a frame. The pair of a track's last face and a
    face of the frame that is closest by `closeness` is linked first; a track that a frame does not continue
    may be found again later.
    """
    found: list[Track] = []
    last, seen = np.empty((0, 4), np.float32), np.empty(0)
    for frame, (faces, now) in enumerate(zip(boxes, seconds, strict=True)):
        near = closeness(last, faces, np.minimum(REACH + SPEED * (now - seen), FARTHEST))
        taken: dict[int, int] = {}
        for place in np.argsort(-near, axis=None, kind="stable").tolist():
            track, face = divmod(place, len(faces))
            if near[track, face] == -np.inf:
                break
            if face not in taken and track not in taken.values():
                taken[face] = track
        fresh = [face for face in range(len(faces)) if face not in taken]
        for face, track in taken.items():
            found[track].append((frame, face))
            last[track], seen[track] = faces[face], now
        found += [[(frame, face)] for face in fresh]
        last, seen = np.concatenate([last, faces[fresh]]), np.append(seen, [now] * len(fresh))
    return found


def closeness(first: Boxes, second: Boxes, reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how close each of `first` (N, 4) is to each of `second` (M, 4): (N, M), −∞ if not one face.

    They are not where the distance of the centres exceeds `reach` (N,) in units of the mean side.
    It is the intersection over union less the distance of the centres in units of the mean side, as in the
    DIoU of arXiv 1911.08287, here with the faces' own size as the unit, so that it tells faces apart that do
    not overlap.
    """
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    area_a, area_b = a[..., 2:].prod(axis=-1), b[..., 2:].prod(axis=-1)
    side_a, side_b = np.sqrt(area_a), np.sqrt(area_b)
    centres = a[..., :2] + a[..., 2:] / 2 - b[..., :2] - b[..., 2:] / 2
    distance = np.linalg.norm(centres, axis=-1) / np.maximum((side_a + side_b) / 2, 1e-9)
    overlap = shared / np.maximum(area_a + area_b - shared, 1e-9)
    growth = np.maximum(side_a, side_b) / np.maximum(np.minimum(side_a, side_b), 1e-9)
    return np.where((distance <= reach[:, None]) & (growth <= GROWTH), overlap - distance, -np.inf)


def least_frames(frames: int) -> int:
    """Return how many of `frames` sampled frames a track needs."""
    return max(1, min(ENOUGH, int(np.ceil(LEAST_SHARE * frames))))


def by_area(found: Sequence[Track], boxes: Sequence[Boxes]) -> list[Track]:
    """Return the tracks, those first whose faces have the largest sum of areas; equal ones in order."""
    areas = [
        sum(float(boxes[frame][face, 2:].prod(dtype=np.float64)) for frame, face in track) for track in found
    ]
    return [found[index] for index in np.argsort(-np.array(areas), kind="stable")]
