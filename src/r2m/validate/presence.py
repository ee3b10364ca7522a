"""Which files of an index are there: folders are listed once, and no file is asked for by itself."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from r2m.errors import R2MError

FOLDERS = 64  # that one thread lists at a time


def split_paths(paths: pa.ChunkedArray) -> tuple[pd.Categorical, pa.ChunkedArray]:
    """Return the folder of each POSIX path, empty for one without, and the name of the file."""
    folders = pc.replace_substring_regex(paths, pattern="(?s)/?[^/]*$", replacement="", max_replacements=1)
    names = pc.replace_substring_regex(paths, pattern="(?s)^.*/", replacement="", max_replacements=1)
    encoded = pc.dictionary_encode(folders).unify_dictionaries().combine_chunks()
    return encoded.to_pandas().array, names


def are_present(root: Path, paths: pa.ChunkedArray, threads: int) -> NDArray[np.bool_]:
    """Return for each of the paths (N,) below `root` whether a file is there, (N,); null is none.

    Raises:
        R2MError: a folder may not be listed.
    """
    folders, names = split_paths(paths)
    # Rows of a folder one after another; those without a path come first.
    order = np.argsort(folders.codes, kind="stable")
    starts = np.searchsorted(folders.codes[order], np.arange(len(folders.categories) + 1))
    sorted_names = names.take(pa.array(order)).combine_chunks()

    def looked_up(first: int) -> list[bool]:
        found = []
        for code in range(first, min(first + FOLDERS, len(folders.categories))):
            files = _files(os.path.join(root, folders.categories[code]))
            span = sorted_names.slice(starts[code], starts[code + 1] - starts[code])
            found += [name in files for name in span.to_pylist()]
        return found

    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(looked_up, range(0, len(folders.categories), FOLDERS))
        present = np.zeros(len(order), dtype=bool)
        present[order[starts[0] :]] = np.fromiter(chain.from_iterable(found), bool, len(order) - starts[0])
    return present


def _files(folder: str) -> set[str]:
    """Return the names of the files of a folder, none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise R2MError(f"{folder}: cannot be listed ({error.strerror})") from error
