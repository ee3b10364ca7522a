"""The video files of a user's folder, taken in as if their frames lay in folders of their names."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r2m.data.faces import Faces, Settings, stem_of
from r2m.video.extract import VideoFile, VideoOptions, extract_videos
from r2m.video.sample import policy

log = logging.getLogger(__name__)


def read_videos(
    source: Path,
    files: Sequence[Path],
    prefix: str,
    settings: Settings,
    frames: int,
    images: Path,
    crops: Path | None,
    state: Path,
) -> Faces:
    """Align and encode the largest face of video files in the folder `source`; name them `prefix`/STEM/FRAME.

    Of videos that are called alike but for the suffix the first that can be used is taken. Images, crops
    and state are as in `extract_videos`.
    """
    options = VideoOptions(frames, "largest", "jpeg")
    faces = Faces()
    waiting: dict[str, list[Path]] = {}
    for file in files:
        waiting.setdefault(stem_of(file), []).append(file)
    count = 0
    while waiting:
        tried = {stem: namesakes.pop(0) for stem, namesakes in waiting.items()}
        videos = [VideoFile(source / file, stem) for stem, file in tried.items()]
        filmed = extract_videos(videos, settings, options, prefix, images, crops, state)
        faces.skipped += filmed.skipped
        table = filmed.table
        used = set(table["video"])
        count += len(used)
        if used:
            faces.extend(
                Faces(
                    image_id=list(table["image_id"]),
                    file=[Path(file) for file in table["file"]],
                    origin=[tried[stem] for stem in table["video"]],
                    sampling=[policy(frames)] * len(table),
                    landmarks=np.stack(list(table["landmarks"])),
                    embedding=np.stack(list(table["embedding"])),
                    digest=list(table["digest"]),
                )
            )
        for stem in used:
            reason = f"named like another video but for the suffix: {tried[stem].as_posix()}"
            faces.skipped += [((source / file).as_posix(), reason) for file in waiting[stem]]
        waiting = {stem: left for stem, left in waiting.items() if left and stem not in used}
    log.info("%s: %d images of %d videos, %s", prefix, len(faces.file), count, policy(frames))
    return faces
