"""Status codes: one table for hardware, tools and documentation."""

from pathlib import Path

from rtl_templates.register_map import STATUS_BITS, STATUS_HELP, Status, status_text

ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_code_fits_and_has_its_meaning():
    assert set(STATUS_HELP) == set(Status)
    assert max(Status) < 1 << STATUS_BITS
    for status, (meaning, action) in STATUS_HELP.items():
        assert meaning
        assert action or status is Status.OK
        assert status_text(status).startswith(f"{status.name}: {meaning}")


def test_the_documentation_has_the_table():
    rows = [f"| {status.value} | `{status.name}` | {meaning} | {action or '-'} |"
            for status, (meaning, action) in STATUS_HELP.items()]
    assert [line for line in ERRORS.read_text().splitlines() if line.startswith("| ") and "`" in line] == rows
