"""Numbers in prose come from results; what is typed in is stated with its reason."""

import json
import re

import pytest
import yaml

from studies.paths import ROOT

STATED = yaml.safe_load((ROOT / "book" / "stated_numbers.yaml").read_text(encoding="utf-8"))

# What is no prose: code, formulas, what is filled in at build time, roles, addresses, HTML.
FENCED = re.compile(r"^(`{3,}).*?^\1\s*?$", re.S | re.M)
NO_PROSE = re.compile(
    r"\$\$.*?\$\$|\$[^$\n]*\$|``.*?``|`[^`]*`|\{\{.*?\}\}|\]\([^)]*\)|</?[a-z][^>\n]*>"
    r"|^:\w+:[^\n]*$|arXiv:\S+|SHA-256",
    re.S | re.M,
)
# A result looks like one: a fraction, a share, a count of a hundred or more, or "times".
NUMBER = re.compile(
    r"(?<![\w.,])(\d+\.\d+|\d[\d,]*(?=\s?%)|\d[\d,]*(?=\s(?:times|points)\b)|\d{3,}|\d+,\d{3})(?![\w.]*\d)"
)


def prose():
    """Yield every text that is written by hand for the book: name, text."""
    for path in sorted((ROOT / "book").glob("*.md")):
        yield path.name, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "exercises").glob("*.md")):
        yield f"exercises/{path.name}", path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        words = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        yield path.name, "\n\n".join(words)


def typed(text):
    return [found[1] for found in NUMBER.finditer(NO_PROSE.sub(" ", FENCED.sub(" ", text)))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MAE-PPP is 0.123 in the last layer", ["0.123"]),
        ("in 12 % of all cells, 3 times", ["12", "3"]),
        ("over 2,048 windows and 448 others", ["2,048", "448"]),
        ("`n = 0.5`, $x = 0.5$, {{ n }} % and 3 x 3 and [a](b/0.5)", []),
        ("in Section 2.1", ["2.1"]),
    ],
)
def test_what_counts_as_typed_in(text, found):
    assert typed(text) == found


@pytest.mark.parametrize(("name", "text"), list(prose()), ids=[name for name, _ in prose()])
def test_a_number_in_prose_is_filled_in_or_stated(name, text):
    allowed = {str(one["number"]) for one in STATED if name in one.get("pages", [name])}
    left = sorted(set(typed(text)) - allowed)
    assert not left, f"{name}: {left}: quote a result, or give a reason in stated_numbers.yaml"


def test_every_stated_number_has_a_reason_and_is_used():
    texts = dict(prose())
    for one in STATED:
        assert len(one["why"]) > 8, one
        pages = one.get("pages", list(texts))
        used = [name for name in pages if str(one["number"]) in typed(texts[name])]
        assert used and (used == pages or "pages" not in one), one
