"""Exercises: one source for each chapter, from which come a student's and an instructor's notebook.

A source is Markdown. After a title, words of introduction and one block of ``python setup`` each
exercise is a section of its own::

    ## A title
    Level 2 of 4, 15 minutes

    The question.

and, each in a fenced block, ``text hint``, ``python stub`` (what a student starts from), ``python
solution``, ``python check`` (assertions on the answer, each with a message that helps) and, named,
three or more of ``python wrong NAME``: typical wrong answers, which the check must refuse. They
are in neither notebook; they are there to test the check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from companion.notebooks import KERNEL
from ppp.errors import PPPError
from studies.storage import outputs

COMMAND = "ppp course"
LEVELS = ("read a figure or table", "compute", "adapt a measurement", "change an experiment")
"""What each level asks, from 1; an exercise has as many points as its level."""
_ONCE = ("hint", "stub", "solution", "check")
_BLOCKS = ("python setup", "text hint", *(f"python {kind}" for kind in (*_ONCE[1:], "wrong")))


class CourseError(PPPError):
    """A source of exercises that cannot be read, or a check that does not do its work."""


@dataclass(frozen=True)
class Exercise:
    """A question, how to begin, how it is solved, and how an answer is checked."""

    title: str
    level: int
    minutes: int
    question: str
    hint: str
    stub: str
    solution: str
    check: str
    wrong: dict[str, str]

    @property
    def grade(self) -> str:
        """How hard it is and how long it takes, as a line of Markdown."""
        what = f"Level {self.level} of {len(LEVELS)}: {LEVELS[self.level - 1]}"
        return f"*{what}; about {self.minutes} minutes.*"


@dataclass(frozen=True)
class Sheet:
    """The exercises to one chapter."""

    stem: str
    title: str
    introduction: str
    setup: str
    exercises: list[Exercise]


def read(path: Path) -> Sheet:
    """Read a source.

    Raises
    ------
    CourseError
        Names the file, the line and what is missing.
    """
    title, setup = "", None
    sections: list[dict[str, Any]] = [{"prose": [[]]}]  # the first is the introduction
    for number, line, block in _parts(path):
        where = f"{path.name}, line {number}"
        section, is_exercise = sections[-1], len(sections) > 1
        if block is not None:
            section["prose"].append([])
            language, kind, name = (*line.split(maxsplit=2), "", "", "")[:3]
            if not kind:  # a block that is part of the question
                section["prose"][-1] += [f"```{language}", block, "```"]
            elif f"{language} {kind}" not in _BLOCKS:
                expected = ", ".join(map(repr, _BLOCKS))
                raise CourseError(f"{where}: block {line!r}; expected one of {expected} NAME")
            elif kind == "setup":
                if is_exercise or setup is not None:
                    raise CourseError(f"{where}: expected one setup, before ##")
                setup = block
            elif not is_exercise:
                raise CourseError(f"{where}: {line!r} before the first ##")
            elif kind == "wrong":
                if not name or name in section["wrong"]:
                    raise CourseError(f"{where}: expected 'wrong' and a new name")
                section["wrong"][name] = block
            elif kind in section:
                raise CourseError(f"{where}: a second {kind!r} in one exercise")
            else:
                section[kind] = block
        elif line.startswith("# ") and not title:
            title = line[2:].strip()
        elif line.startswith("## "):
            sections.append({"title": line[3:].strip(), "prose": [[]], "wrong": {}, "line": number})
        elif is_exercise and "level" not in section and line.strip():
            grade = re.fullmatch(r"Level ([1-4]) of 4, (\d+) minutes", line.strip())
            if not grade:
                raise CourseError(f"{where}: {line!r}; expected 'Level 2 of 4, 15 minutes'")
            section |= {"level": int(grade[1]), "minutes": int(grade[2])}
        else:
            section["prose"][-1].append(line)
    introduction, *exercises = sections
    if not title or setup is None or not exercises:
        raise CourseError(f"{path.name}: expected a title, a block 'python setup', and exercises")
    return Sheet(
        path.stem,
        title,
        _text(introduction["prose"]),
        setup,
        [_exercise(path.name, **parts) for parts in exercises],
    )


def _text(prose: list[list[str]]) -> str:
    """Join the lines between blocks, each such piece a paragraph of its own."""
    pieces = ["\n".join(lines).strip() for lines in prose]
    return "\n\n".join(piece for piece in pieces if piece)


def _exercise(source: str, line: int, prose: list[list[str]], **parts: Any) -> Exercise:
    """Make an exercise of its parts, or name those that are missing."""
    question = _text(prose)
    missing = [name for name in ("level", *_ONCE) if name not in parts]
    missing += ["question"] * (not question)
    missing += ["three wrong answers"] * (len(parts["wrong"]) < 3)
    if missing:
        raise CourseError(
            f"{source}, line {line}: exercise {parts['title']!r} lacks {', '.join(missing)}"
        )
    return Exercise(question=question, **parts)


def _parts(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield lines, and whole fenced blocks: number, line or the fence's words, block or None."""
    fence, began, inside = "", 0, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if began:
            if line == "```":
                yield began, fence, "\n".join(inside)
                began, inside = 0, []
            else:
                inside.append(line)
        elif line.startswith("```"):
            fence, began = line[3:].strip(), number
        else:
            yield number, line, None
    if began:
        raise CourseError(f"{path.name}, line {began}: a block that does not end")


def attempt(sheet: Sheet, exercise: Exercise, answer: str, names: dict[str, Any]) -> str:
    """Give an answer to a check: return what it objects to, or the empty text.

    Parameters
    ----------
    sheet : Sheet
    exercise : Exercise
        One of its exercises.
    answer : str
        Code.
    names : dict
        From :func:`prepare`; it stays as it is.

    Raises
    ------
    CourseError
        The answer or the check fails by something other than an assertion with a message.
    """
    names = dict(names)
    where = f"{sheet.stem}, {exercise.title!r}"
    for part, code in {"answer": answer, "check": exercise.check}.items():
        try:
            exec(compile(code, f"<{part} of {where}>", "exec"), names)
        except Exception as error:
            if part == "answer" or not isinstance(error, AssertionError):
                raise CourseError(f"{where}: the {part} does not run: {error!r}") from error
            if not str(error):
                raise CourseError(f"{where}: an assertion without a message") from None
            return str(error)
    return ""


def prepare(sheet: Sheet) -> dict[str, Any]:
    """Run a sheet's setup and return its names."""
    names: dict[str, Any] = {"__name__": "exercises"}
    exec(compile(sheet.setup, f"<setup of {sheet.stem}>", "exec"), names)
    return names


def verify(sheet: Sheet) -> list[str]:
    """Return what is wrong with a sheet's checks: each must accept the solution and no wrong one.

    The stub, too, must be refused: a student who has written nothing has not answered.
    """
    found = []
    names = prepare(sheet)
    for exercise in sheet.exercises:
        where = f"{sheet.stem}, {exercise.title!r}"
        try:
            if refused := attempt(sheet, exercise, exercise.solution, names):
                found.append(f"{where}: the solution is refused: {refused}")
            for name, answer in {"the stub": exercise.stub, **exercise.wrong}.items():
                if not attempt(sheet, exercise, answer, names):
                    found.append(f"{where}: accepted, but wrong: {name}")
        except CourseError as error:
            found.append(str(error))
    return found


# ---- notebooks


def notebook(sheet: Sheet, *, solved: bool) -> nbformat.NotebookNode:
    """Return the notebook of a sheet: questions, hints, stubs and checks.

    With `solved` there are solutions, marked as nbgrader marks them: ``nbgrader
    generate_assignment`` makes a student's version of it.
    """
    v4 = nbformat.v4
    words = (
        f"{sheet.introduction}\n\nRun the cells from the top. The cell below each answer checks "
        "it: it prints that the answer is accepted, or says what is wrong. It needs the library of "
        "the companion, and runs on a laptop without a graphics card."
    )
    cells = [
        v4.new_markdown_cell(f"# {sheet.title}\n\n{words}", id="title"),
        v4.new_code_cell(sheet.setup, id="setup"),
    ]
    for number, exercise in enumerate(sheet.exercises, start=1):
        name = f"exercise-{number}"
        question = (
            f"## {number}. {exercise.title}\n\n{exercise.grade}\n\n{exercise.question}\n\n"
            f"<details><summary>A hint</summary>\n\n{exercise.hint}\n\n</details>"
        )
        answer = exercise.stub
        if solved:
            # nbgrader takes out what lies between its marks; the stub stays for students.
            answer += f"\n\n\n### BEGIN SOLUTION\n{exercise.solution}\n### END SOLUTION"
        check = f'{exercise.check}\nprint("Exercise {number}: accepted.")'
        cells += [
            v4.new_markdown_cell(question, id=f"{name}-question"),
            _graded(name, answer, solution=True, grade=False),
            _graded(f"{name}-check", check, solution=False, grade=True, points=exercise.level),
        ]
    kernel = {"name": KERNEL, "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _graded(name: str, source: str, **grading: Any) -> nbformat.NotebookNode:
    """Return a cell with metadata as nbgrader reads it."""
    about = {"schema_version": 3, "grade_id": name, "locked": grading["grade"], "task": False}
    # "Run all" goes on behind an exercise that is not done yet.
    metadata = {"nbgrader": about | grading, "tags": ["raises-exception"]}
    return nbformat.v4.new_code_cell(source, id=name, metadata=metadata)


def build(sources: Path, target: Path, *, force: bool = False) -> list[Path]:
    """Write the notebooks of every source into ``student`` and ``instructor``, all or none.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    CourseError
        A source that cannot be read; nothing is written then.
    OutputError
        The place is taken; `force` replaces what this function made.
    """
    sheets = [read(path) for path in sorted(sources.glob("*.md"))]
    if not sheets:
        raise CourseError(f"{sources}: no exercises here; expected NAME.md")
    written = []
    with outputs.made(target, COMMAND, force=force) as folder:
        for name in ("student", "instructor"):
            (folder / name).mkdir()
            for sheet in sheets:
                path = Path(name, f"{sheet.stem}.ipynb")
                nbformat.write(notebook(sheet, solved=name == "instructor"), folder / path)
                written.append(target / path)
    return written
