"""Names that a package offers but loads only when they are used: ``import compressor`` stays light."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str],
               ) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package : str
        Its name.
    modules : dict of str to str
        By public name, the module that defines it. None of the names may be a submodule's: importing that
        would replace it.

    Returns
    -------
    (callable(str), callable())

    >>> get, names = lazy_names("compressor", {"say": "compressor.progress"})
    >>> get("exprot")
    Traceback (most recent call last):
    ...
    AttributeError: module 'compressor' has no attribute 'exprot'
    >>> names()
    ['say']
    """
    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    def names() -> list[str]:
        return sorted(modules)

    return get, names
