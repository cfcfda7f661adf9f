"""Notebooks with parameters: find them, read them, and check what is asked of them."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from companion.notebooks.places import name_of
from ppp import files
from ppp.errors import ParameterError, PPPError, first_words, shown, unknown
from studies import parameters, paths
from studies.storage import documents

if TYPE_CHECKING:
    from nbformat import NotebookNode


class NotebookError(PPPError):
    """A notebook that cannot be found or read, or whose parameters cannot be."""


def find(name: str, folder: Path | None = None) -> Path:
    """Find a notebook by path, name, place, or a part of the name that only one notebook has.

    Parameters
    ----------
    name : str
        Such as ``notebooks/extracting-ppp.ipynb``, ``extracting`` or ``03``.
    folder : Path, optional
        Where to look; the checkout's ``notebooks`` without it.

    Raises
    ------
    NotebookError
        No notebook, or more than one, goes by this name.
    """
    path = documents.as_path(name, "notebook", NotebookError)
    if path.suffix == ".ipynb":
        if not path.is_file():
            raise NotebookError(
                f"notebook {name}: no such file; give a path, a name or a part of it"
            )
        return path
    folder = folder or paths.ROOT / "notebooks"
    known = {one.stem: one for one in sorted(folder.glob("*.ipynb"))}
    asked = (name, name_of(name))
    for fits in (
        lambda stem: stem in asked,
        lambda stem: stem.startswith(asked),
        lambda stem: any(one in stem for one in asked),
    ):
        matches = [stem for stem in known if fits(stem)]
        if len(matches) == 1:
            return known[matches[0]]
        if matches:
            raise NotebookError(f"notebook {name!r} is ambiguous; it fits {', '.join(matches)}")
    raise NotebookError(unknown("notebook", name, known or ["none: no notebooks here"]))


def read(notebook: Path) -> NotebookNode:
    """Read a notebook, or refuse what is none in one line.

    Raises
    ------
    NotebookError
    """
    import nbformat

    text = documents.read_text(notebook, "notebook", error=NotebookError)
    try:
        content = nbformat.reads(text, as_version=4)
        nbformat.validate(content)
    except Exception as error:  # nbformat raises whatever its JSON and schema readers raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise NotebookError(f"notebook {notebook}: not a notebook ({reason[0]})") from None
    return content


def code_cells(notebook: Path) -> dict[str, str]:
    """Return the code of a notebook, cell by cell, but for its parameters.

    Raises
    ------
    NotebookError
    """
    return {name: source for name, source, tags in _code(notebook) if "parameters" not in tags}


def _code(notebook: Path) -> list[tuple[str, str, list[str]]]:
    """Read name, source and tags of each cell of code, without the seconds that nbformat takes."""
    text = documents.read_text(notebook, "notebook", error=NotebookError)
    try:
        return [
            (
                cell.get("id", f"cell {number}"),
                "".join(cell["source"]),
                cell["metadata"].get("tags", []),
            )
            for number, cell in enumerate(json.loads(text)["cells"])
            if cell["cell_type"] == "code"
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotebookError(f"notebook {notebook}: not a notebook ({first_words(error)})") from None


def defaults(notebook: Path) -> dict[str, Any]:
    """Read the parameters of a notebook without running it.

    Parameters
    ----------
    notebook : Path
        A notebook with one code cell that is tagged ``parameters`` and holds nothing
        but ``name = literal`` lines, each name one of
        :data:`studies.parameters.PARAMETERS`.

    Returns
    -------
    dict of str to object
        In the order of the cell.

    Raises
    ------
    NotebookError
        Not a notebook, not exactly one such cell, or anything else in the cell.
    ParameterError
        A name that the registry lacks, or a default that it refuses.
    """
    tagged = [source for _, source, tags in _code(notebook) if "parameters" in tags]
    if len(tagged) != 1:
        raise NotebookError(
            f"notebook {notebook}: {len(tagged)} code cells tagged 'parameters'; expected one"
        )
    try:
        values = {}
        for line in ast.parse(tagged[0]).body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)]) if name not in values:
                    values[name] = ast.literal_eval(line.value)
                case _:
                    raise ValueError(f"line {line.lineno} of it")
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise NotebookError(
            f"notebook {notebook}: its parameters cell may hold only lines 'name = literal', "
            f"each name once ({error})"
        ) from None
    try:
        return parameters.checked(values)
    except ParameterError as error:
        raise ParameterError(f"notebook {notebook}: {error}") from None


def profile_values(
    profile: str, notebook: Path, values: Mapping[str, Any], profiles: Path | None = None
) -> dict[str, Any]:
    """Return what a profile changes in a notebook's parameters, checked.

    Parameters
    ----------
    profile : str
        A key of the profiles file. ``standard`` is what the notebook's own values mean.
    notebook : Path
        Its stem is the key below the profile.
    values : mapping of str to object
        The notebook's parameters, from :func:`defaults`.
    profiles : Path, optional
        The profiles file; the checkout's ``profiles.yaml`` without it.
    """
    path = profiles or paths.ROOT / "profiles.yaml"
    from studies.storage import yaml_documents

    known = _names(yaml_documents.read_yaml(path, error=ParameterError), path)
    if profile not in known:
        raise ParameterError(unknown("profile", profile, known))
    changes = dict(_names(_names(known[profile], path).get(notebook.stem), path))
    if "profile" in values:
        changes.setdefault("profile", profile)
    try:
        return merge(values, changes)
    except ParameterError as error:
        raise ParameterError(f"{path.name}, {profile}, {notebook.stem}: {error}") from None


def merge(
    values: Mapping[str, Any], changes: Mapping[str, Any], *, text: bool = False
) -> dict[str, Any]:
    """Return `changes` in the parameters' types, having refused what `values` lacks.

    With `text`, every change is text, as on the command line.
    """
    for name in changes:
        if name not in values:
            raise ParameterError(unknown("parameter", name, values))
    return parameters.checked(changes, text=text)


def _names(value: Any, path: Path) -> Mapping[str, Any]:
    """Return a mapping of a profiles file, empty where nothing is given."""
    if value is not None and not isinstance(value, dict):
        raise ParameterError(f"{path.name}: {shown(value)}; expected names with values")
    return value or {}


def digest(values: Mapping[str, Any]) -> str:
    """Return eight hexadecimal digits that stand for these parameters.

    Examples
    --------
    >>> digest({"n": 2, "seed": 0}) == digest({"seed": 0, "n": 2})
    True
    """
    return files.digest(json.dumps(dict(values), sort_keys=True).encode())[:8]
