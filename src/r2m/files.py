"""Atomic output: a file or folder appears under its name complete, or not at all."""

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from r2m.errors import R2MError

# What another machine left is not written any more after so many seconds: nobody there can be asked.
OLD = 7 * 86400


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on error.

    The caller writes a file there, or makes a folder. An existing `path` is replaced. What a process that was
    killed left of it before is removed.

    Raises:
        FileNotFoundError: the body wrote nothing.
        OSError: it cannot be written; `path` is named, not the temporary one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    discard_left(path)
    temporary = temporary_path(path)
    try:
        with _named({temporary: path}):
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
        discard_left(path)
    try:
        with _named({temporary: path for path, temporary in temporaries.items()}):
            yield list(temporaries.values())
            publish_together(temporaries, paths)
    finally:
        for temporary in temporaries.values():
            discard(temporary)


def refusal(source: str, path: Path, error: OSError) -> R2MError:
    """Return what to tell of an output that the system refuses; `source` is where `path` was given."""
    return R2MError(f"{source}: {error.filename or path}: cannot be written ({error.strerror or error})")


@contextmanager
def written(source: str, path: Path) -> Iterator[None]:
    """Let what the system refuses to write raise R2MError, which names `source`, where `path` was given."""
    try:
        yield
    except OSError as error:
        raise refusal(source, path, error) from error


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def temporary_path(path: Path) -> Path:
    """Return the name that this process writes `path` under until it is complete."""
    # The suffix is kept, since writers such as matplotlib choose the format by it.
    return path.with_name(f".{path.stem}.{socket.gethostname()}-{os.getpid()}.tmp{path.suffix}")


def discard_left(path: Path) -> None:
    """Remove what processes left half-made of `path`: of this machine and gone, or older than a week."""
    pattern = re.compile(
        rf"\.{re.escape(path.stem)}\.(?:(?P<host>.+)-)?(?P<pid>\d+)\.tmp{re.escape(path.suffix)}"
    )
    with suppress(OSError):  # what cannot be looked at is in nobody's way
        for name in os.listdir(path.parent):
            if left := pattern.fullmatch(name):
                temporary = path.with_name(name)
                is_ours = left["host"] == socket.gethostname()
                if not _runs(int(left["pid"])) if is_ours else _is_old(temporary):
                    discard(temporary)


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


def publish_instead(
    files: Mapping[Path, Path], replaced: Collection[Path | None], olds: Sequence[Path]
) -> None:
    """Rename temporary files like `publish_together`, and remove the files `olds`: all of that, or nothing.

    `olds` go first and `files` come, in their orders. With an index first among the ones and last among the
    others, a process that is killed meanwhile may leave shards without an index, but none with a wrong one.
    """
    for path, temporary in files.items():
        with _naming(path):
            _sync(temporary)  # takes long, and is done before anything is put aside
    asides = {old: _aside(old) for old in olds}
    with ExitStack() as undo:
        for old, aside in asides.items():
            undo.callback(_put_back, aside, old)
            with _naming(old):
                os.rename(old, aside)
        publish_together(files, replaced)
        undo.pop_all()
    for aside in asides.values():
        discard(aside)


@contextmanager
def _named(targets: Mapping[Path, Path]) -> Iterator[None]:
    """Let the system's errors name what is to be written, given by its temporary path, and not that."""
    try:
        yield
    except OSError as error:
        for temporary, path in targets.items():
            if error.errno is not None and Path(str(error.filename)).is_relative_to(temporary):
                place = path / Path(error.filename).relative_to(temporary)
                raise type(error)(error.errno, error.strerror, str(place)) from error
        raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let the system's errors name `path`."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _aside(path: Path) -> Path:
    """Return the name of a file that others replace; `discard_left` finds it once it is old."""
    return path.with_name(f".{path.stem}.old-{socket.gethostname()}-{os.getpid()}.tmp{path.suffix}")


def _put_back(aside: Path, path: Path) -> None:
    if os.path.lexists(aside) and not os.path.lexists(path):
        os.rename(aside, path)


def _runs(pid: int) -> bool:
    """Tell whether a process of this machine is there; another one of its number counts as well."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the latter: no number of a process
        return False
    except PermissionError:  # another user's
        return True
    return True


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > OLD


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
