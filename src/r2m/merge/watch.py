"""Files that must not change while they are read."""

import os
from collections.abc import Iterable
from pathlib import Path

from r2m.errors import R2MError


class Watch:
    """Sizes and times of files when they were opened.

    A file that is replaced as a whole, by renaming another one, does no harm: what was opened is read on.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._states = {path: os.stat(path) for path in paths}

    def check(self) -> None:
        """Raise R2MError for a file that was written to since."""
        for path, before in self._states.items():
            try:
                after = os.stat(path)
            except OSError:  # removed, or on a disk that went away: reading told of that
                continue
            is_same_file = (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
            if is_same_file and (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise R2MError(
                    f"{path}: was written to while it was merged, so that old and new weights would be mixed;"
                    " merge again when it is complete"
                )
