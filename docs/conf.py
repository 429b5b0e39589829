"""Sphinx settings of the documentation: ``make docs`` builds it, warnings are errors."""

from docutils.parsers.rst import roles

project = "hwgen"

extensions = [
    "myst_parser",          # the pages are Markdown
    "sphinx.ext.autodoc",   # reference from docstrings
    "sphinx.ext.napoleon",  # docstrings are numpydoc
    "sphinx_click",         # reference from the commands' own help
]

html_theme = "furo"
html_title = "hwgen"
html_show_copyright = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = False
napoleon_custom_sections = ["Members"]  # ports of hardware components

# The types of arguments are prose ("int array, shape (rows, K)"), whose words are no names to link to.
suppress_warnings = ["ref.python"]

# Hardware docstrings write directions and shapes as Amaranth's own do: :py:`In(1)`.
roles.register_canonical_role("py", roles.CustomRole("py", roles.code_role, {"language": "python"}))
