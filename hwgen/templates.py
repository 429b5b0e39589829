"""Generated text: Jinja2 templates of :mod:`rtl_templates`, filled from frozen dataclasses."""

from dataclasses import fields
from importlib import resources
from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                  keep_trailing_newline=True)


def render(name: str, context: Any) -> str:
    """Text of one file from its template ``rtl_templates/<name>.j2``.

    Parameters
    ----------
    name : str
        Folder and name of the file, like ``"hls/config.h"``.
    context : dataclass
        Its fields are the template's variables; a variable that it lacks is an error.
    """
    template = resources.files("rtl_templates").joinpath(f"{name}.j2").read_text()
    return _ENVIRONMENT.from_string(template).render(
        {field.name: getattr(context, field.name) for field in fields(context)})
