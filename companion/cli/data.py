"""``ppp claims`` and ``ppp fetch``: what the tables say, and what comes from elsewhere."""

from __future__ import annotations

import click

from companion.cli.options import PATH, WHOLE, Command, print_table


@click.command(cls=Command)
@click.argument("claims", nargs=-1, metavar="[CLAIM]...", help="such as C8; without, all")
@click.option("--data", type=PATH, help="folder of the tables; default: the shipped ones")
def claims(claims, data) -> None:
    """Compute the verdict and the grade of every claim; fails if one is another than it was."""
    from studies import ledger
    from studies.evidence import grades

    verdicts = ledger.judge(claims, data or ledger.DATA)
    graded, real = (
        [grades.judge(each.claim.id, data or ledger.DATA, real=kind) for each in verdicts]
        for kind in (False, True)
    )
    columns = ["claim", "first verdict", "small networks", "real networks", "says", "effect"]
    rows = grades.table(verdicts, graded, real)[columns]
    print_table([columns, *rows.itertuples(index=False)])
    ledger.require_unchanged(verdicts)
    grades.require_unchanged([*graded, *real])


@click.command(cls=Command)
@click.argument(
    "what",
    metavar="NAME|LIST",
    help="debian, urban100, urban100-large, hed-vgg16, or a file of lines URL [SHA256] [NAME]",
)
@click.option(
    "--to", metavar="FOLDER", help="default, for a name: the cache, where it is looked for"
)
@click.option("--jobs", type=WHOLE, default=4, metavar="N", help="files at a time; default: 4")
def fetch(what, to, jobs) -> None:
    """Fetch photographs or a network's weights, by name, or the addresses of a list; goes on
    where it was broken off."""
    from studies.pictures import datasets

    try:
        datasets.fetch(what, to, jobs=jobs)
        if what in datasets.WEIGHTS:
            from studies.networks import pretrained

            pretrained.weights_of(what)  # converted once, while the folder may be written
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what has arrived is kept; the same command goes on") from None
