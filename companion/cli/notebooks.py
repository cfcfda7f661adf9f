"""``ppp run`` and ``ppp params``: one notebook, with your parameters."""

from __future__ import annotations

from pathlib import Path

import click

from companion.cli.options import Command, changes, output, print_table
from ppp.errors import ParameterError, PPPError

NOTEBOOK = click.argument("notebook", help="path, name, a part of it, or place: extracting, 03")


@click.command(cls=Command)
@NOTEBOOK
@changes("change a parameter, also NAME=VALUE; a list is written a,b or [a, b]")
@click.option("--profile", help="start from this profile; default: standard")
@output("default: runs/NAME-DIGEST")
def run(notebook, changes, profile, output, force) -> None:
    """Run a notebook with your parameters."""
    from companion import notebooks
    from studies.storage import outputs

    source = notebooks.find(notebook)
    values = notebooks.defaults(source)
    asked = dict(changes)
    named = asked.pop("profile", profile) if "profile" in values else profile
    if profile not in (None, named):
        raise ParameterError(f"--profile {profile} and -p profile {named}; expected one of them")
    profiled = notebooks.profile_values(named or "standard", source, values)
    if "results" in asked:
        raise ParameterError("parameter results is set by the output folder; give --output")
    given = profiled | notebooks.merge(values, asked, text=True)
    settings = {name: value for name, value in (values | given).items() if name != "results"}
    changed = {name: value for name, value in settings.items() if value != values[name]}
    notebooks.check(source, settings, changed)
    output = output or Path("runs", f"{source.stem}-{notebooks.digest(settings)}")
    results = output / "results"
    try:
        with outputs.made(output, "ppp run", force=force) as folder:
            target = folder / source.name
            notebooks.execute(source, target, given, folder / "results", results)
            notebooks.explain(target, folder / "results", source.stem)
            notebooks.render(target, target.with_suffix(".html"))
    except notebooks.NotebookFailed as error:
        where = _keep(output.with_name(f"{output.name}.failed"), source.name, error.content)
        text = f"{error}; as far as it got{where}"
        raise notebooks.NotebookFailed(text, error.reason) from None
    page = output / f"{source.stem}.html"
    print(f"notebook  {output / source.name}\npage      {page}\nresults   {results}")


def _keep(failed: Path, name: str, content: bytes) -> str:
    """Keep a notebook that failed, and say where, or why not."""
    from studies.storage import outputs

    try:
        with outputs.made(failed, "ppp run", force=True) as folder:
            (folder / name).write_bytes(content)
        return f": {failed / name}"
    except (PPPError, OSError) as error:
        return f", it is not kept: {error}"


@click.command(cls=Command)
@NOTEBOOK
def params(notebook) -> None:
    """List the parameters of a notebook."""
    from companion import notebooks
    from studies import parameters

    rows = [("name", "type", "default", "allowed", "meaning")]
    for name, value in notebooks.defaults(notebooks.find(notebook)).items():
        entry = parameters.lookup(name)
        kind = type(value).__name__
        rows.append((name, kind, repr(value), entry.kind.describe(), entry.meaning))
    print_table(rows)
