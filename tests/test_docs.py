"""What the documents say of the code is so."""

import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def cells(page):
    """Rows of a page's table, without what only `make docs` can measure."""
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and "models/" in line]
    return [[*row[:3], *row[4:]] for row in rows]


def test_the_table_of_architectures_is_that_of_the_code():
    make = runpy.run_path(str(DOCS / "make_architectures.py"))
    written = (DOCS / "architectures.md").read_text()
    assert cells(written) == cells(make["page"]({})), "the code has changed: run `make docs`"
    assert "not measured" not in written


def test_every_difference_from_the_reference_is_tiny():
    found = re.findall(r"\| (\de[-+]\d\d) \|", (DOCS / "architectures.md").read_text())
    assert found
    assert all(float(number) < 1e-9 for number in found)
