"""The pages of the book: what is added to an executed chapter before it is published."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml

from companion import course, notebooks
from companion.book import release
from companion.book.plan import LABORATORY, BookError, Build, repository
from companion.notebooks import staleness
from companion.notebooks.numbers import name_in_prose, numbers
from companion.notebooks.places import PLACES
from companion.quantities import show_seconds
from companion.templates import TEMPLATES
from ppp import files
from studies import parameters

Notebook = nbformat.NotebookNode
_INLINE = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


def assemble(build: Build, target: Path, *, printed: bool = False) -> None:
    """Put the book's sources, executed chapters and results together in one folder.

    Parameters
    ----------
    build : Build
        Its chapters have been run.
    target : Path
        What is there already is replaced.
    printed : bool
        For paper: figures and tables without links, buttons and scripts.

    Raises
    ------
    BookError
        An executed chapter holds an error, or two chapters claim the same number.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(build.root / "book", target)
    (target / "notebooks").mkdir(exist_ok=True)
    substitutions: dict[str, int | float | str] = {}
    for stem in build.stems:
        executed = _executed(build, stem)
        page = _printed(executed) if printed else _published(build, stem, executed, target)
        nbformat.write(page, target / "notebooks" / f"{stem}.ipynb")
        if build.results(stem).is_dir():
            shutil.copytree(build.results(stem), target / "_static" / "results" / stem)
        new = numbers(build.results(stem), stem)
        if twice := sorted(new.keys() & substitutions):
            raise BookError(f"chapter {stem}: the number {twice[0]} exists already")
        substitutions |= new
        if (took := notebooks.seconds(executed)) is not None:
            substitutions[f"{name_in_prose(stem)}_run_time"] = show_seconds(took)
    for name, (mark, text) in _FILLED.items():
        if (target / name).exists():
            _fill(target / name, mark, text(build))
    if build.changes:
        _variant(build, target)
    config = yaml.safe_load((target / "_config.yml").read_text(encoding="utf-8"))
    config.setdefault("parse", {})["myst_substitutions"] = substitutions
    if LABORATORY in build.parts and not printed:
        (target / "_extra").mkdir()
        shutil.copy(build.laboratory, target / "_extra")
        config["sphinx"]["config"]["html_extra_path"] = ["_extra"]
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (target / "_config.yml").write_text(text, encoding="utf-8")


def _fill(path: Path, mark: str, value: str) -> None:
    text = path.read_text(encoding="utf-8")
    if mark not in text:
        raise BookError(f"{path.name}: expected a line {mark}")
    path.write_text(text.replace(mark, value), encoding="utf-8")


# ---- chapters


def _executed(build: Build, stem: str) -> Notebook:
    """Read an executed chapter, with the prose that its source has now."""
    path = build.executed(stem)
    executed = nbformat.read(path, as_version=4)
    for _, output in _outputs(executed):
        if output.output_type == "error":
            raise BookError(
                f"chapter {path}: a cell shows an error ({output.ename}: {output.evalue}); no such "
                "page is published"
            )
    return with_prose(nbformat.read(build.notebook(stem), as_version=4), executed)


def _outputs(page: Notebook) -> Iterator[tuple[Notebook, Notebook]]:
    """Yield each output of a notebook with its cell."""
    for cell in page.cells:
        for output in cell.get("outputs", []):
            yield cell, output


def with_prose(source: Notebook, executed: Notebook) -> Notebook:
    """Return an executed notebook with the words of its source.

    Prose is no part of a chapter's key: where only words have changed, the results stand.
    """
    code = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    wanted = {cell.id for cell in source.cells if cell.cell_type == "code"}
    if not wanted <= set(code):  # a page that says why the chapter was not run
        return executed
    cells = []
    for cell in source.cells:
        ran = code.get(cell.id, {})
        made = {name: ran[name] for name in ("outputs", "execution_count") if name in ran}
        cells.append({**cell, **made, "metadata": {**ran.get("metadata", {}), **cell.metadata}})
        if "parameters" in cell.metadata.get("tags", []):
            cells += [
                _without_place(cell)
                for cell in executed.cells
                if "injected-parameters" in cell.metadata.get("tags", [])
            ]
    return nbformat.from_dict({**executed, "cells": cells})


def _without_place(cell: Notebook) -> Notebook:
    """Leave out where the results of a chapter were written: a folder of the machine."""
    lines = [line for line in cell.source.splitlines() if not line.startswith("results = ")]
    return nbformat.from_dict({**cell, "source": "\n".join(lines)})


def _published(build: Build, stem: str, page: Notebook, target: Path) -> Notebook:
    """Add what a reader can do with a chapter, and move its figures and tables into files."""
    static = target / "_static"
    count = 0
    for cell, output in _outputs(page):
        if not (html := "".join(output.get("data", {}).get("text/html", ""))):
            continue
        if 'class="dataframe"' in html:
            count += 1
            name = f"table-{count}.csv"
            files.write(static / "tables" / stem / name, table_csv(html).encode())
            html += (
                f'<p class="ppp-table-link"><a href="../_static/tables/{stem}/{name}" '
                f'download="{stem}-{name}">This table as CSV</a></p>'
            )
        html = _INLINE.sub(lambda found: _to_file(found[1], static, stem), html)
        end = "</ul></details>\n</figure>"
        output.data["text/html"] = html.replace(end, _run_time(page, cell) + end)
    _write(release.notebook(build, stem), static / "notebooks" / f"{stem}.ipynb")
    first, *rest = page.cells
    cells = [first, _box(build, stem, page), *rest]
    if tables := _tables(build.results(stem)):
        cells.append(_words("data", stem=stem, tables=tables))
    exercises = build.root / "exercises" / f"{stem}.md"
    if exercises.exists():
        sheet = course.read(exercises)
        _write(course.notebook(sheet, solved=False), static / "exercises" / f"{stem}.ipynb")
        cells.append(_words("exercises", sheet=sheet))
    return nbformat.from_dict({**page, "cells": cells})


def _write(notebook: Notebook, path: Path) -> None:
    files.write(path, nbformat.writes(notebook).encode())


def _words(name: str, **values: Any) -> Notebook:
    """Return a cell of prose, made from a template."""
    return nbformat.v4.new_markdown_cell(_text(name, **values), id=f"companion-{name}")


def _text(name: str, **values: Any) -> str:
    return TEMPLATES.get_template(f"book/{name}.md.j2").render(values).strip()


def _to_file(data: str, static: Path, stem: str) -> str:
    png = base64.b64decode(data)
    name = f"{staleness.digest(png)}.png"
    files.write(static / "figures" / stem / name, png)
    return f'src="../_static/figures/{stem}/{name}" loading="lazy"'


def _run_time(page: Notebook, cell: Notebook) -> str:
    whole, own = notebooks.seconds(page), cell.metadata.get("papermill", {}).get("duration")
    if whole is None or own is None:
        return ""
    return f"<li><b>run time</b>: {own:.1f} s of this cell, {show_seconds(whole)} of the page</li>"


def _box(build: Build, stem: str, page: Notebook) -> Notebook:
    """Say how a page is run again, exactly as it was, and with other values.

    If the address of the repository is known, there are links to Binder, which makes its
    environment, and to Colab, which opens the released notebook, whose first cell installs what it
    needs, from the branch ``notebooks``, to which the workflow writes it.
    """
    changed = (f" -p {name} {shlex.quote(value)}" for name, value in build.changed(stem).items())
    seconds = notebooks.seconds(page)
    github = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?", repository())
    return _words(
        "rerun",
        stem=stem,
        profile=build.profile,
        took=show_seconds(seconds) if seconds else "",
        command=f"ppp run {stem} --profile {build.profile}{''.join(changed)}",
        github=github[1] if github else "",
    )


def _tables(results: Path) -> list[tuple[str, int, int]]:
    """Return name, rows and columns of every table among the results of a chapter."""
    sizes = []
    for path in sorted(results.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = [*csv.reader(file)] or [[]]
        sizes.append((path.name, len(rows) - 1, len(rows[0])))
    return sizes


# ---- tables


def table_csv(html: str) -> str:
    """Return the first table of an HTML text as CSV, cells that span several repeated.

    Examples
    --------
    >>> table_csv("<table><tr><th>a</th><th>b</th></tr><tr><td colspan=2>1,5</td></tr></table>")
    'a,b\\n"1,5","1,5"\\n'
    """
    lines = table_rows(html)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def table_rows(html: str) -> list[list[str]]:
    """Return the cells of the first table, row by row; one that spans several stands in each."""
    from bs4 import BeautifulSoup

    table = BeautifulSoup(html, "html.parser").table
    filled: dict[tuple[int, int], str] = {}
    rows = table.find_all("tr")
    for y, row in enumerate(rows):
        x = 0
        for cell in row.find_all(["th", "td"]):
            while (y, x) in filled:
                x += 1
            for down in range(int(cell.get("rowspan", 1))):
                for right in range(int(cell.get("colspan", 1))):
                    filled[y + down, x + right] = cell.get_text().strip()
    width = 1 + max((x for _, x in filled), default=-1)
    return [[filled.get((y, x), "") for x in range(width)] for y in range(len(rows))]


# ---- pages that are made


def parameter_index(build: Build) -> str:
    """Return a table of every parameter: meaning, allowed values, chapters and their values."""
    used: dict[str, list[str]] = {}
    for stem in build.stems:
        chapter = f"[{PLACES.get(stem, stem)}](notebooks/{stem}.ipynb)"
        for name, value in notebooks.defaults(build.notebook(stem)).items():
            used.setdefault(name, []).append(f"{chapter} `{json.dumps(value)}`")
    rows = [["parameter", "meaning", "allowed", "chapter and its value"]]
    for name, chapters in sorted(used.items()):
        entry = parameters.lookup(name)
        rows.append([f"`{name}`", entry.meaning, entry.kind.describe(), "<br>".join(chapters)])
    return _markdown_table(rows)


def _without_title(path: Path) -> str:
    """Return a text without its title, which the page has."""
    return path.read_text(encoding="utf-8").partition("\n")[2].strip()


_FILLED = {
    "parameters.md": ("@PARAMETERS@", parameter_index),
    "changelog.md": ("@CHANGELOG@", lambda build: _without_title(build.root / "CHANGELOG.md")),
    "contributing.md": (
        "@CONTRIBUTING@",
        lambda build: _without_title(build.root / "CONTRIBUTING.md"),
    ),
    "citing.md": ("@BIBTEX@", lambda build: release.bibtex(build.root / "CITATION.cff")),
}
"""Pages with a mark in the place of what is made at build time: page -> mark, what makes it."""


def _variant(build: Build, target: Path) -> None:
    """Give a variant its own first page, and leave out what quotes published numbers."""
    chapters = []
    for stem in build.stems:
        changed = build.changed(stem)
        cells = nbformat.read(build.executed(stem), as_version=4).cells
        what = "refuses" if any(cell.id == "refused" for cell in cells) else "computed with"
        here = f"{what} {_listed(changed)}" if changed else "as published: no such parameter"
        chapters.append((stem, here))
    text = _text(
        "variant", changes=_listed(build.changes), profile=build.profile, chapters=chapters
    )
    (target / "intro.md").write_text(f"{text}\n", encoding="utf-8")
    toc = yaml.safe_load((target / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc.get("parts", []):
        part["chapters"] = [one for one in part["chapters"] if not _quotes(target, one["file"])]
    (target / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")


def _quotes(target: Path, page: str) -> bool:
    path = target / f"{page}.md"
    return path.exists() and "{{" in path.read_text(encoding="utf-8")


def _listed(changes: Mapping[str, str]) -> str:
    return ", ".join(f"`{name} = {value}`" for name, value in changes.items())


# ---- on paper


def _printed(page: Notebook) -> Notebook:
    """Return a chapter whose figures are pictures with captions, and whose tables LaTeX can set."""
    for cell in page.cells:
        outputs: list[Any] = []
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            found = _INLINE.search(html)
            if found and "ppp-figure" in html:
                caption = re.search(r"<figcaption>(.*?)</figcaption>", html, re.S)
                outputs.append(_output({"image/png": found[1]}))
                outputs.append(_output({"text/markdown": f"*{_plain(caption[1])}*"}))
            elif 'class="dataframe"' in html:
                outputs.append(_output({"text/markdown": _markdown_table(table_rows(html))}))
            elif "data" not in output or set(output.data) != {"text/html"}:
                outputs.append(output)
        if "outputs" in cell:
            cell.outputs = outputs
    return page


def _output(data: dict[str, str]) -> Notebook:
    return nbformat.v4.new_output("display_data", data=data)


def _plain(html: str) -> str:
    from html import unescape

    return unescape(re.sub(r"<[^>]*>", "", html)).replace("*", r"\*").strip()


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[cell.replace("|", r"\|") or " " for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
