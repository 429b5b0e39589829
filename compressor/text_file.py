"""Text files that are whole or absent."""

import os
from pathlib import Path

StrPath = str | os.PathLike[str]
"""What is taken as a path."""


def write_text(path: StrPath, text: str) -> Path:
    """Write a text file in UTF-8, aside first and then renamed; an earlier one is replaced.

    Parameters
    ----------
    path : path
        In a folder that exists. The name aside is the process's own, so that two writers do not mix.
    text : str

    Returns
    -------
    Path
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
    return path
