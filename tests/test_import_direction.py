"""compressor <- rtl_templates <- hwgen <- sim; hwgen/cli.py alone may import sim, inside a command.

Files form no circles either, not even by imports for types alone.
"""

import ast
from graphlib import CycleError, TopologicalSorter
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


def imported_files(path, source):
    """Files of our packages that a file imports as a whole, or names from, inside functions or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            for found in (Path(*name.split(".")).with_suffix(".py"), Path(*name.split("."), "__init__.py")):
                if found != path and found.parts[0] in ORDER and (ROOT / found).is_file():
                    yield found


def circle(files):
    """Files that import each other in a circle, of a dict of path to source; None if there is none."""
    try:
        TopologicalSorter({path: set(imported_files(path, source))
                           for path, source in files.items()}).prepare()
    except CycleError as error:
        return [str(path) for path in error.args[1]]
    return None


def sources():
    """Every file but the packages' own namespaces, which list names of any file; and commands, which may."""
    paths = (path.relative_to(ROOT) for path in FILES)
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths
            if not (len(path.parts) == 2 and path.name == "__init__.py") and path != Path("hwgen/cli.py")}


def test_no_file_imports_itself_by_way_of_others():
    assert circle(sources()) is None


def test_the_guard_sees_a_circle():
    files = sources()
    files[Path("hwgen/plan_request.py")] += "\nif TYPE_CHECKING:\n    from hwgen.planner import make_plan\n"
    assert {"hwgen/planner.py", "hwgen/plan_request.py"} <= set(circle(files))
