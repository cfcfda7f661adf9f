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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from companion.notebooks import KERNEL
from ppp.errors import PPPError
from studies.storage import outputs

COMMAND = "ppp course"
LEVELS = {
    1: "read a figure or table",
    2: "compute",
    3: "adapt a measurement",
    4: "change an experiment",
}
_KINDS = ("setup", "hint", "stub", "solution", "check", "wrong")
_ONCE = ("hint", "stub", "solution", "check")


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
        what = f"Level {self.level} of {len(LEVELS)}: {LEVELS[self.level]}"
        return f"*{what}; about {self.minutes} minutes.*"


@dataclass(frozen=True)
class Sheet:
    """The exercises to one chapter."""

    stem: str
    title: str
    introduction: str
    setup: str
    exercises: list[Exercise] = field(default_factory=list)


def read(path: Path) -> Sheet:
    """Read a source.

    Raises
    ------
    CourseError
        Names the file, the line and what is missing.
    """
    where = path.name
    title, introduction, setup = "", "", None
    exercises: list[dict[str, Any]] = []
    words: list[str] = []

    def finish() -> None:
        nonlocal introduction, words
        text = "\n".join(words).strip()
        words = []
        if exercises:
            exercises[-1]["question"] += f"\n\n{text}" if text else ""
        else:
            introduction += f"\n\n{text}" if text else ""

    for number, line, block in _parts(path):
        if block is not None:
            finish()
            language, _, rest = line.partition(" ")
            kind, _, name = rest.partition(" ")
            expected = "text" if kind == "hint" else "python"
            if not kind:  # a block that is part of the question
                words += [f"```{language}", block, "```"]
                continue
            if kind not in _KINDS or language != expected:
                raise CourseError(
                    f"{where}, line {number}: block {line!r}; expected one of "
                    "'text hint', 'python setup', 'python stub', 'python solution', "
                    "'python check', 'python wrong NAME'"
                )
            if kind == "setup" and (exercises or setup is not None):
                raise CourseError(f"{where}, line {number}: expected one setup, before ##")
            if kind == "setup":
                setup = block
            elif not exercises:
                raise CourseError(f"{where}, line {number}: {line!r} before the first ##")
            elif kind == "wrong":
                if not name or name in exercises[-1]["wrong"]:
                    raise CourseError(f"{where}, line {number}: expected 'wrong' and a new name")
                exercises[-1]["wrong"][name] = block
            elif kind in exercises[-1]:
                raise CourseError(f"{where}, line {number}: a second {kind!r} in one exercise")
            else:
                exercises[-1][kind] = block
        elif line.startswith("# ") and not title:
            title = line[2:].strip()
        elif line.startswith("## "):
            finish()
            exercises.append(
                {"title": line[3:].strip(), "question": "", "wrong": {}, "line": number}
            )
        elif exercises and "level" not in exercises[-1] and line.strip():
            found = re.fullmatch(r"Level ([1-4]) of 4, (\d+) minutes", line.strip())
            if not found:
                raise CourseError(
                    f"{where}, line {number}: {line!r}; expected 'Level 2 of 4, 15 minutes'"
                )
            exercises[-1] |= {"level": int(found[1]), "minutes": int(found[2])}
        else:
            words.append(line)
    finish()
    if not title or setup is None or not exercises:
        raise CourseError(f"{where}: expected a title, a block 'python setup', and exercises")
    made = []
    for parts in exercises:
        line = parts.pop("line")
        missing = [name for name in ("level", *_ONCE) if name not in parts]
        missing += ["question"] * (not parts["question"].strip())
        missing += ["three wrong answers"] * (len(parts["wrong"]) < 3)
        if missing:
            raise CourseError(
                f"{where}, line {line}: exercise {parts['title']!r} lacks {', '.join(missing)}"
            )
        made.append(Exercise(**(parts | {"question": parts["question"].strip()})))
    return Sheet(path.stem, title, introduction.strip(), setup, made)


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
    here = f"{sheet.stem}, {exercise.title!r}"
    try:
        exec(compile(answer, f"<answer to {here}>", "exec"), names)
    except Exception as error:
        raise CourseError(f"{here}: the answer does not run: {_said(error)}") from error
    try:
        exec(compile(exercise.check, f"<check of {here}>", "exec"), names)
    except AssertionError as error:
        if not str(error):
            raise CourseError(f"{here}: the check has an assertion without a message") from None
        return str(error)
    except Exception as error:
        raise CourseError(f"{here}: the check does not run: {_said(error)}") from error
    return ""


def prepare(sheet: Sheet) -> dict[str, Any]:
    """Run a sheet's setup and return its names."""
    names: dict[str, Any] = {"__name__": "exercises"}
    exec(compile(sheet.setup, f"<setup of {sheet.stem}>", "exec"), names)
    return names


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def problems(path: Path) -> list[str]:
    """Read a source and return what is wrong with its checks."""
    return verify(read(path))


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

POINTS = {1: 1, 2: 2, 3: 3, 4: 4}
"""Points of an exercise by its level, as nbgrader counts them."""


def student(sheet: Sheet) -> nbformat.NotebookNode:
    """Return the notebook that a student fills in: questions, hints, stubs and checks."""
    return _notebook(sheet, solved=False)


def instructor(sheet: Sheet) -> nbformat.NotebookNode:
    """Return the notebook with solutions, marked as nbgrader marks them.

    ``nbgrader generate_assignment`` makes a student's version of it.
    """
    return _notebook(sheet, solved=True)


def _notebook(sheet: Sheet, solved: bool) -> nbformat.NotebookNode:
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
            v4.new_code_cell(answer, id=name, metadata=_grading(name, solution=True, grade=False)),
            v4.new_code_cell(
                check,
                id=f"{name}-check",
                metadata=_grading(
                    f"{name}-check", solution=False, grade=True, points=POINTS[exercise.level]
                ),
            ),
        ]
    kernel = {"name": KERNEL, "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _grading(name: str, **values: Any) -> dict[str, Any]:
    """Return a cell's metadata as nbgrader reads it."""
    about = {"schema_version": 3, "grade_id": name, "locked": values["grade"], "task": False}
    return {"nbgrader": {**about, **values}}


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
        raise CourseError(f"{sources}: no exercises here; expected NN-NAME.md")
    written = []
    with outputs.made(target, COMMAND, force=force) as folder:
        for name, made in (("student", student), ("instructor", instructor)):
            (folder / name).mkdir()
            for sheet in sheets:
                path = Path(name, f"{sheet.stem}.ipynb")
                nbformat.write(made(sheet), folder / path)
                written.append(target / path)
    return written
