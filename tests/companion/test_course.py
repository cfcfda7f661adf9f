"""Exercises: sources are read or refused, notebooks made of them, and every check does its work."""

import re

import nbformat
import pytest

from companion import cli, course
from studies import paths
from studies.paths import ROOT

SHEETS = sorted((ROOT / "exercises").glob("*.md"))
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
SOURCE = """\
# Exercises: Toy

Some words.

```python setup
limit = 3
```

## Double it
Level 2 of 4, 5 minutes

Write `double(x)`.

```text hint
Add.
```

```python stub
def double(x):
    ...
```

```python solution
def double(x):
    return 2 * x
```

```python check
assert double(limit) is not None, "double returns nothing yet"
assert double(limit) == 6, f"double(3) is {double(limit)}; expected twice as much"
```

```python wrong square
def double(x):
    return x * x
```

```python wrong same
def double(x):
    return x
```

```python wrong off by one
def double(x):
    return 2 * x + 1
```
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "exercises" / "01-toy.md"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_source_is_read(source):
    sheet = course.read(source)
    (exercise,) = sheet.exercises
    assert (sheet.title, sheet.introduction, sheet.setup) == (
        "Exercises: Toy",
        "Some words.",
        "limit = 3",
    )
    assert (exercise.level, exercise.minutes, exercise.question) == (2, 5, "Write `double(x)`.")
    assert list(exercise.wrong) == ["square", "same", "off by one"]
    assert course.verify(sheet) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Level 2 of 4, 5 minutes", "Level 5 of 4, 5 minutes", "expected 'Level 2 of 4"),
        ("```python check", "```python chek", "line 28: block 'python chek'"),
        ("```text hint", "```python hint", "block 'python hint'"),
        ("```python wrong same", "```python wrong square", "a new name"),
        ("```python wrong same", "```python solution", "a second 'solution'"),
        ("Write `double(x)`.", "", "lacks question"),
        ("# Exercises: Toy\n", "", "expected a title"),
        ("    return 2 * x + 1\n```", "    return 2 * x + 1", "a block that does not end"),
        ("## Double it", "", "before the first ##"),
    ],
)
def test_a_source_that_cannot_be_read(source, old, new, says):
    edit(source, old, new)
    with pytest.raises(course.CourseError, match=re.escape(says)) as caught:
        course.read(source)
    assert source.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    return 2 * x\n```", "    return 3 * x\n```", "the solution is refused"),
        ("    return x * x", "    return x + x", "accepted, but wrong: square"),
        ("    ...", "    return 2 * x", "accepted, but wrong: the stub"),
        ("    return x * x", "    return y", "NameError"),
        (', f"double(3) is', " #", "an assertion without a message"),
    ],
)
def test_a_check_that_does_not_do_its_work_is_found(source, old, new, says):
    edit(source, old, new)
    (problem, *_) = course.verify(course.read(source))
    assert says in problem


def test_notebooks_for_students_and_instructors(source, tmp_path):
    written = course.build(source.parent, tmp_path / "course")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "course/student/01-toy.ipynb",
        "course/instructor/01-toy.ipynb",
    ]
    student, instructor = (nbformat.read(path, 4) for path in written)
    for made in (student, instructor):
        nbformat.validate(made)
    words = nbformat.writes(student)
    assert "return 2 * x" not in words and "BEGIN SOLUTION" not in words
    solution = instructor.cells[3].source
    assert solution.startswith("def double(x):\n    ...")  # what nbgrader leaves to students
    assert "### BEGIN SOLUTION\ndef double(x):\n    return 2 * x\n### END SOLUTION" in solution
    for made in (student, instructor):
        assert "x * x" not in nbformat.writes(made)  # wrong answers are in neither
    marks = [cell.metadata["nbgrader"] for cell in student.cells if "nbgrader" in cell.metadata]
    assert [(m["solution"], m["grade"], m.get("points")) for m in marks] == [
        (True, False, None),
        (False, True, 2),
    ]
    cells = [cell for cell in student.cells if "nbgrader" in cell.metadata]
    assert all("raises-exception" in cell.metadata["tags"] for cell in cells), "Run all goes on"
    # The instructor's notebook runs from top to bottom and accepts itself.
    names = {}
    for cell in instructor.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)


def test_command(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    edit(source, "limit = 3", 'limit = 3\nprint("a table")')
    assert cli.main(["course", "--check"]) == 0
    out = capsys.readouterr().out
    assert "2 notebooks" in out and "checked   01-toy: 1 exercise" in out and "table" not in out
    edit(source, "    return x * x", "    return x + x")
    assert cli.main(["course", "--check"]) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main(["course", "--check", "--force"]) == 2
    assert "accepted, but wrong: square" in capsys.readouterr().err


# ---- the real ones


def test_every_chapter_has_exercises_of_every_level():
    assert [path.stem for path in SHEETS] == CHAPTERS
    for path in SHEETS:
        sheet = course.read(path)
        levels = [exercise.level for exercise in sheet.exercises]
        assert len(levels) >= 4 and levels == sorted(levels)
        assert set(levels) == {1, 2, 3, 4}, path.name


QUICK = ("padding-schemes", "paper-on-scale", "sweeps")
CHECKED = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.nightly])
    for path in SHEETS
]


@pytest.mark.parametrize("path", CHECKED)
def test_checks_accept_the_solution_and_refuse_every_wrong_answer(path):
    assert course.verify(course.read(path)) == []
