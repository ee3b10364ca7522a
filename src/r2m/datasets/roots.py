"""Links through which image sets read the files of data sets, so that a moved folder changes none of them."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from r2m.datasets.options import DatasetOptions
from r2m.errors import R2MError
from r2m.files import temporary_path


def link_roots(
    datasets: Mapping[str, DatasetOptions],
    used: Iterable[str],
    place: Callable[[str], Path],
) -> None:
    """Let `place`(NAME) be a link to the folder of the files of every data set that is `used`.

    The index says where they lie unless the options do.

    Raises:
        R2MError: an index cannot be read, or something else than a link is in the way.
    """
    for name in used:
        from r2m.index import table  # heavy, and most runs have no data set

        options = datasets[name]
        target = Path(options.root or table.metadata(options.index)["root"]).resolve()
        link = place(name)
        if link.is_symlink() and Path(os.readlink(link)) == target:
            continue
        if link.exists() and not link.is_symlink():
            raise R2MError(f"{link}: expected a link to the files of the data set {name}; remove it")
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(link)
        os.symlink(target, temporary)
        os.replace(temporary, link)
