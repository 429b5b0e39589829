"""How commands end when a user's input cannot be used: one line on standard error, exit code 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


def error_line(error: Exception) -> str:
    """What an error says, on one line; of a file that cannot be used, its name and the reason.

    >>> error_line(FileNotFoundError(2, "No such file or directory", "recipe.yaml"))
    'recipe.yaml: No such file or directory'
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


@contextmanager
def one_line_errors(expected: tuple[type[Exception], ...] = (ValueError, OSError)) -> Iterator[None]:
    """End the command at ``expected`` errors; anything else is a defect and keeps its traceback.

    A context, or a decorator. Every error of the compressor is a ValueError or an OSError.
    """
    try:
        yield
    except expected as error:
        raise click.ClickException(error_line(error)) from error
