"""Writes the files of a report: ``index.html``, ``summary.json``, ``summary.md``."""

import json
from collections.abc import Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from compressor.bundle import Bundle
from compressor.text_file import StrPath, write_text
from hwgen.plan import Plan
from hwgen.report.page import make_page
from hwgen.report.summary import summarize
from hwgen.report.theme import DARK, LIGHT
from hwgen.results import Result

REPORT = "report"
FILES = ("index.html", "summary.json", "summary.md")
"""They tell of runs that come after a build, so the build's manifest does not list them."""


def write_report(directory: StrPath, bundle: Bundle, plan: Plan, results: Sequence[Result] = (),
                 timeline: str | None = None) -> dict[str, Any]:
    """Write the report of a build, each file aside then renamed.

    Equal builds with equal results give equal bytes.

    Parameters
    ----------
    directory : path
        The build.
    bundle : compressor.bundle.Bundle
    plan : hwgen.plan.Plan
    results : sequence of hwgen.results.Result
    timeline : str, optional
        SVG of the units over time.

    Returns
    -------
    dict
        The data, as in ``summary.json``.
    """
    data = summarize(bundle, plan, results)
    page = make_page(data, bundle, timeline)
    folder = Path(directory) / REPORT
    texts = (render("index.html", page), json.dumps(data, indent=1, sort_keys=True) + "\n",
             render("summary.md", page))
    for name, text in zip(FILES, texts, strict=True):
        write_text(folder / name, text)
    return data


def render(name: str, context: Any) -> str:
    """Text of a template of this package; everything is escaped in HTML, and pipes in Markdown's tables.

    Parameters
    ----------
    name : str
        Name without ``.j2``.
    context : dataclass
        Its fields are the template's variables; a variable that it lacks is an error.
    """
    html = name.endswith(".html")
    templates = resources.files("hwgen.report").joinpath("templates")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        autoescape=html, loader=jinja2.FunctionLoader(
            lambda one: templates.joinpath(one).read_text(encoding="utf-8")))
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    values = {field.name: getattr(context, field.name) for field in fields(context)}
    if html:
        style = environment.get_template("style.css.j2").render(light=LIGHT, dark=DARK)
        values["style"] = Markup(style)
    return environment.get_template(f"{name}.j2").render(values)
