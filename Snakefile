"""What is made from what. `make book` and `ppp build` run it; so does snakemake itself.

Times are compared here, contents elsewhere: a file below `wanted` is younger than what was made
if, and only if, what it lists has changed (companion/notebooks/staleness.py).
"""

import os
from pathlib import Path

from companion.book.build import WANTED, make_laboratory, publish, run_chapter
from companion.book.plan import LABORATORY, Build
from companion.processes import end_with_command

end_with_command()
BUILD = Build.of(Path(workflow.basedir), config)
if WANTED not in os.environ:
    BUILD.want()
FOLDER = BUILD.folder.relative_to(BUILD.root)


rule all:
    input:
        # Not the pages: Snakemake removes a rule's outputs before it runs the rule, and a
        # build that fails would take the published ones away.
        FOLDER / "made" / "book.json",


rule notebook:
    input:
        FOLDER / "wanted" / "{stem}.json",
    output:
        # Of a chapter only the note of what it was made from: the chapter is replaced whole, and
        # Snakemake would remove it before it runs.
        FOLDER / "made" / "{stem}.json",
    wildcard_constraints:
        stem=f"(?!(book|{LABORATORY})$).+",
    threads: 1
    run:
        run_chapter(BUILD, wildcards.stem)


rule laboratory:
    input:
        FOLDER / "wanted" / f"{LABORATORY}.json",
    output:
        FOLDER / "made" / f"{LABORATORY}.json",
    threads: 1
    run:
        make_laboratory(BUILD)


rule book:
    input:
        FOLDER / "wanted" / "book.json",
        expand(str(FOLDER / "made" / "{stem}.json"), stem=BUILD.parts),
    output:
        FOLDER / "made" / "book.json",
    threads: 2
    run:
        publish(BUILD, threads)
