"""Which frames of a video are taken."""


def spread(total: int, count: int | None) -> list[int]:
    """Return the numbers of `count` frames that are spread evenly over all `total` frames of a video.

    The video is cut into `count` parts whose lengths differ by one frame at most, and the middle frame of
    each part is taken. All frames are taken if `count` is None or not below `total`.
    """
    if count is None or count >= total:
        return list(range(total))
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def policy(count: int | None) -> str | None:
    """Return the manifest's `sampling` of videos of which `count` frames are taken; None: every frame."""
    return None if count is None else f"up to {count} of each video, evenly"
