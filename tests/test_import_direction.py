"""compressor <- rtl_templates <- hwgen <- sim; hwgen/cli.py alone may import sim, inside a command."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("compressor", "rtl_templates", "hwgen", "sim")
FILES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))


def imported_packages(tree):
    """(package, line, at top level) of every import of one of our packages."""
    top = set(ast.walk(ast.Module(body=[node for node in tree.body
                                        if isinstance(node, ast.Import | ast.ImportFrom)],
                                  type_ignores=[])))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; name the package"
            names = [node.module]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ORDER:
                yield name.split(".")[0], node.lineno, node in top


def violations(path, source):
    """One line for each import against the direction; ``path`` is relative to the repository."""
    package = path.parts[0]
    for imported, line, at_top in imported_packages(ast.parse(source)):
        if ORDER.index(imported) <= ORDER.index(package):
            continue
        if path == Path("hwgen/cli.py") and imported == "sim" and not at_top:
            continue
        yield f"{path}:{line}: {package} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    assert list(violations(path.relative_to(ROOT), path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(("path", "source", "found"), [
    ("compressor/x.py", "from hwgen.plan import Plan", 1),
    ("compressor/x.py", "def f():\n    import rtl_templates.word_format", 1),
    ("rtl_templates/x.py", "import hwgen", 1),
    ("hwgen/plan.py", "def f():\n    from sim import runner", 1),
    ("hwgen/cli.py", "from sim import runner", 1),
    ("hwgen/cli.py", "def f():\n    from sim import runner", 0),
    ("sim/x.py", "import compressor, rtl_templates, hwgen, simulation", 0),
])
def test_the_guard_sees_violations(path, source, found):
    assert len(list(violations(Path(path), source))) == found
