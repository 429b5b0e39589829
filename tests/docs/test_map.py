"""The map of the files: every one of the four packages, with the sentence that it begins with."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| \[`(?P<name>[^`]+)`\]\(\.\./(?P<path>[^)]+)\) \| (?P<text>.*) \|$", re.MULTILINE)


def first_line(path):
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n")[0]


def test_every_file_is_on_the_map_with_its_first_sentence():
    page = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    rows = [match.groupdict() for match in ROW.finditer(page)]
    assert all(row["path"].endswith(f"/{row['name']}") for row in rows)
    found = [(row["path"], row["text"]) for row in rows]
    wanted = [(path.relative_to(ROOT).as_posix(), first_line(path))
              for package in ("compressor", "rtl_templates", "hwgen", "sim")
              for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    assert sorted(found) == sorted(wanted)
