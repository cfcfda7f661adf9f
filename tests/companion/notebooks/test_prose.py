"""The prose of a chapter outside of the book: filled in, or left out, and never a dead link."""

import json
import re

import pytest

from companion.notebooks.prose import alone
from studies.paths import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def prose(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Of {{ n }} windows. Here {{ m }} % stand.", "Of 8 windows."),
        ("One ({{ m }}). Two.\n\n{{ m }} three.\n\nFour.", "Two.\n\nFour."),
        ('It is {{ "%.2f"|format(x) }}; so. {{ "%.2f"|format(word) }}.', "It is 0.25; so."),
        ("* a {{ m }}\n* b {{ n }}\n  c", "* b 8\n  c"),
        ("| a | b |\n|---|---|\n| 1 | {{ m }} |\n| 2 | {{ n }} |",
         "| a | b |\n|---|---|\n| 2 | 8 |"),
        ("```\n{{ m }}\n```", "```\n{{ m }}\n```"),
        ("[A](sweeps), [](ppp-metrics), ![x](y), [w](https://a.b)",
         "[A](at/sweeps), ppp-metrics, ![x](y), [w](https://a.b)"),
        ("[B](../sweeps.ipynb#part)", "[B](at/sweeps#part)"),
    ],
)  # fmt: skip
def test_a_text_alone(text, read):
    found = alone(
        text, {"n": 8, "x": 0.25, "word": "w"}, lambda name: f"at/{name}" * (name == "sweeps")
    )
    assert found.replace("chapter 04, ", "") == read


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("known", [False, True], ids=["without results", "with results"])
def test_no_placeholder_citation_or_dead_link_is_left(path, known):
    texts = prose(path)
    names = {one for text in texts for one in re.findall(r"\b[a-z]+(?:_[a-zA-Z0-9]+)+\b", text)}
    numbers = dict.fromkeys(names, 0.5) if known else {}
    for text in texts:
        read = alone(text, numbers)
        assert "{{" not in read and "{cite" not in read
        assert (
            re.findall(r"\]\((?!https?:|image)[^)]*\)", re.sub("```.*?```", "", read, flags=re.S))
            == []
        )
        sentences = read.count(". ") >= text.count(". ") * (0.8 if known else 0)
        assert sentences, "nearly everything stays where every number is known"
