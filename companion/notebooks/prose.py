"""The prose of a chapter that is shown alone, outside of the book.

The book fills in numbers, citations and links when it is made. A chapter that was run by itself has
its own results only: what they do not hold is left out, sentence by sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, StrictUndefined, TemplateError

from companion.notebooks.places import PLACES

_PROSE = Environment(undefined=StrictUndefined)
_FILLED = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_CODE = re.compile(r"(^```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\s\d])|(?<=[.!?][*_)\"'])\s+(?=[^\s\d])")
_CITED = re.compile(r"\{cite(?::([tp]))?\}`([^`]+)`")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|/|#)([\w./-]+?)(?:\.ipynb|\.md)?(#[\w-]+)?\)")


def alone(
    text: str,
    numbers: Mapping[str, object] = {},
    page: Callable[[str], str] = lambda name: "",
) -> str:
    """Return a text of the book as it can be read without the book.

    Parameters
    ----------
    text : str
        Markdown with ``{{ name }}``, citations, and links to other pages of the book.
    numbers : mapping of str to object
        What may be filled in. A sentence, a line of a table or an item of a list that needs
        anything else is left out.
    page : callable
        Name of a page -> its address, or nothing: then its words stay, without the link.

    Returns
    -------
    str

    Examples
    --------
    >>> alone("It is {{ a_n }}. It was {{ b_n }}. See [the rest](sweeps).", {"a_n": 3})
    'It is 3. See the rest.'
    >>> alone("As {cite:t}`lin2023` say {cite:p}`islam2020,kayhan2020`.")
    'As Lin et al. (2023) say (Islam et al., 2020; Kayhan & van Gemert, 2020).'
    """
    parts = _CODE.split(text)
    parts[::2] = [_prose(part, numbers, page) for part in parts[::2]]
    return "".join(parts)


def _prose(text: str, numbers: Mapping[str, object], page: Callable[[str], str]) -> str:
    paragraphs = re.split(r"(\n\s*\n)", text)
    kept = []
    for paragraph, gap in zip(paragraphs[::2], [*paragraphs[1::2], ""]):
        filled = _paragraph(paragraph, numbers)
        if filled or not paragraph:
            kept += [filled, gap]
    text = _CITED.sub(lambda found: _cited(found[2].split(","), found[1] == "t"), "".join(kept))
    return _LINK.sub(lambda found: _link(found[1], found[2], found[3] or "", page), text)


def _paragraph(text: str, numbers: Mapping[str, object]) -> str:
    """Fill in a paragraph; a table and a list go line by line, anything else by sentences."""
    if not _FILLED.search(text):
        return text
    if re.match(r"\s*([|*-]|\d+\.) ?", text):
        pieces, glue = re.split(r"\n(?=\s*(?:[|*-]|\d+\.) ?)", text), "\n"
    else:
        pieces, glue = _SENTENCE.split(text), " "
    filled = []
    for piece in pieces:
        try:
            filled.append(
                _FILLED.sub(lambda found: _PROSE.from_string(found[0]).render(numbers), piece)
            )
        except (TemplateError, TypeError, ValueError):
            continue
    return glue.join(filled)


def _cited(keys: list[str], in_text: bool) -> str:
    texts = [_AUTHORS[key.strip()] for key in keys]
    if in_text:
        return ", ".join(f"{who} ({year})" for who, year in texts)
    return "(" + "; ".join(f"{who}, {year}" for who, year in texts) + ")"


def _link(words: str, target: str, part: str, page: Callable[[str], str]) -> str:
    name = Path(target).name
    words = words or (f"chapter {PLACES[name]}, {name}" if name in PLACES else name)
    address = page(name)
    return f"[{words}]({address}{part})" if address else words


class _Authors(dict):
    """Key -> who and when, as the bibliography says; read when it is first asked."""

    def __missing__(self, key: str) -> tuple[str, str]:
        from studies import paths

        text = (paths.ROOT / "book" / "bibliography.bib").read_text(encoding="utf-8")
        for entry in re.split(r"^@", text, flags=re.MULTILINE)[1:]:
            name = entry.partition("{")[2].partition(",")[0].strip()
            given = dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", entry, re.MULTILINE))
            families = [
                one.partition(",")[0].strip("{} ") for one in given["author"].split(" and ")
            ]
            who = " & ".join(families) if len(families) < 3 else f"{families[0]} et al."
            self[name] = who, given["year"]
        return self.setdefault(key, (key, "n.d."))


_AUTHORS = _Authors()
