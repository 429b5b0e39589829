"""Files that are whole or absent, and what is said when something cannot be written."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

StrPath = str | os.PathLike[str]
"""What is taken as a path."""


class WriteError(OSError):
    """A file or folder that cannot be written; the message is one line that names it.

    ``strerror`` is the reason alone.
    """

    def __init__(self, path: StrPath, reason: str) -> None:
        super().__init__(f"{path}: cannot be written: {reason}")
        self.strerror = reason


@contextmanager
def writing(path: StrPath) -> Iterator[None]:
    """Turn an OSError, while something is written aside for ``path``, into a WriteError that names it."""
    try:
        yield
    except OSError as error:
        raise WriteError(path, error.strerror or str(error)) from error


def make_folder(path: StrPath) -> Path:
    """Make a folder and those that it is in, unless they are there; WriteError if that cannot be."""
    path = Path(path)
    with writing(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
    return path


@contextmanager
def whole_file(path: StrPath) -> Iterator[Path]:
    """Where to write a file aside; when the context ends it is renamed to ``path``, an earlier one replaced.

    The folder of ``path`` is made if it is not there. The name aside is the process's own, so that two
    writers do not mix; whatever ends the context early leaves nothing there.

    Raises
    ------
    WriteError
    """
    path = Path(path)
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all: see :func:`whole_file`.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    WriteError
    """
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)
