"""Text files that are whole or absent, and what is said when something cannot be written."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

StrPath = str | os.PathLike[str]
"""What is taken as a path."""


class WriteError(OSError):
    """A file or folder that cannot be written; the message is one line that names it."""


@contextmanager
def writing(path: StrPath) -> Iterator[None]:
    """Turn an OSError, while something is written aside for ``path``, into a WriteError that names it."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def make_folder(path: StrPath) -> Path:
    """Make a folder and those that it is in, unless they are there; WriteError if that cannot be."""
    path = Path(path)
    with writing(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
    return path


def write_text(path: StrPath, text: str) -> Path:
    """Write a text file in UTF-8, aside first and then renamed; an earlier one is replaced.

    Parameters
    ----------
    path : path
        Its folder is made if it is not there. The name aside is the process's own, so that two writers do
        not mix.
    text : str

    Returns
    -------
    Path

    Raises
    ------
    WriteError
        Nothing is left aside then.
    """
    path = Path(path)
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    return path
