"""Sections of YAML files: unknown keys are refused, and what is wrong is told in one line."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from compressor.text_file import StrPath


class Section(BaseModel):
    """A frozen mapping of a YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: StrPath, what: str, error_type: type[ValueError]) -> Any:
    """Plain values of a YAML file; ``error_type``, in one line that says ``what`` it is, if it is none."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise error_type(f"{path}: cannot read the {what}: {error}") from error
    except yaml.YAMLError as error:
        raise error_type(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def first_problem(error: ValidationError, tags: Collection[str] = ()) -> str:
    """The first thing that is wrong with a section, and where, in one line.

    ``tags`` are the discriminators' own ("admm", "nm"), which are no keys of the file.
    """
    problem, *others = error.errors(include_url=False)
    where = ".".join(str(part) for part in problem["loc"] if part not in tags)
    if problem["type"] == "extra_forbidden":
        text = "unknown key; check its spelling and its place"
    elif problem["type"] == "missing":
        text = "this key is required"
    elif problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
    else:
        text = f"{problem['msg']}, not {problem['input']!r}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{where}: {text}{more}" if where else f"{text}{more}"
