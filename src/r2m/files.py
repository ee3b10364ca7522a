"""Atomic output: a file or folder appears under its name complete, or not at all."""

import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on error.

    The caller writes a file there, or makes a folder. An existing `path` is replaced.

    Raises:
        FileNotFoundError: the body wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        discard(temporary)


@contextmanager
def atomic_paths(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary path beside each of `paths`, as `atomic_path` does; all files appear, or none."""
    temporaries = {path: temporary_path(path) for path in paths}
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield list(temporaries.values())
        publish_together(temporaries, paths)
    finally:
        for temporary in temporaries.values():
            discard(temporary)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def temporary_path(path: Path) -> Path:
    """Return the name that this process writes `path` under until it is complete."""
    # The suffix is kept, since writers such as matplotlib choose the format by it.
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")


def publish(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; a file is on the disk before, so that no crash leaves an empty one."""
    if temporary.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        _sync(temporary)
    os.replace(temporary, path)
    with suppress(OSError):  # some network filesystems cannot sync a folder
        _sync(path.parent)


def publish_together(files: Mapping[Path, Path], replaced: Collection[Path | None]) -> None:
    """Rename temporary files, given by the path of each, to their paths: all of them, or none.

    A file that exists is replaced if its path is among `replaced`.

    Raises:
        FileExistsError: a file that must not be replaced, though it may have come since anyone looked.
        OSError: a file cannot be renamed. Either names the path, and what was there is there again.
    """
    with ExitStack() as undo:
        for path, temporary in files.items():
            try:
                if path not in replaced and os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                _sync(temporary)
            except OSError as error:
                raise type(error)(error.errno, error.strerror, str(path)) from error
        olds = [temporary.with_name(f"{temporary.name}.old") for temporary in files.values()]
        for old in olds:
            undo.callback(discard, old)
        for (path, temporary), old in zip(files.items(), olds, strict=True):
            try:
                undo.callback(_replace(temporary, path, old) if path in replaced else _claim(temporary, path))
            except OSError as error:
                raise type(error)(error.errno, error.strerror, str(path)) from error
        undo.pop_all()
    for path, old in zip(files, olds, strict=True):
        discard(old)
        with suppress(OSError):
            _sync(path.parent)


def _replace(temporary: Path, path: Path, old: Path) -> Callable[[], None]:
    """Rename `temporary` to `path`; return what undoes it, by a link to the file that was there."""
    with suppress(OSError):  # nothing is there, or the filesystem has no hard links
        os.link(path, old, follow_symlinks=False)
    os.replace(temporary, path)
    return lambda: os.replace(old, path) if os.path.lexists(old) else path.unlink(missing_ok=True)


def _claim(temporary: Path, path: Path) -> Callable[[], None]:
    """Rename `temporary` to `path`, where nothing may be; return what undoes it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links: the name is taken first, which only one process can do
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(temporary, path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    discard(temporary)
    return lambda: path.unlink(missing_ok=True)


def discard(temporary: Path) -> None:
    """Remove the file or folder `temporary`, if it is there."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
