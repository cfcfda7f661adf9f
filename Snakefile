"""What is made from what. `make book` and `ppp build` run it; so does snakemake itself."""

from pathlib import Path

from companion import book, notebooks

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "standard")
STEMS = book.stems(ROOT / "book" / "_toc.yml")
PAGES = sorted(path.relative_to(ROOT) for path in ROOT.glob("book/**/*") if path.is_file())


rule all:
    input:
        # The mark of a clean build. Snakemake removes a rule's outputs before it runs the rule:
        # with the pages themselves as the output, a failed build would take them away.
        f"build/{PROFILE}/html/.complete",


rule notebook:
    input:
        notebook="notebooks/{stem}.ipynb",
        sources=book.sources(ROOT),
    output:
        notebook="build/{profile}/notebooks/{stem}.ipynb",
        results=directory("build/{profile}/results/{stem}"),
    params:
        values=lambda wildcards: book.values(ROOT, wildcards.profile, wildcards.stem),
    threads: 2
    run:
        notebooks.execute(
            Path(input.notebook), Path(output.notebook), params.values, Path(output.results)
        )


rule book:
    input:
        pages=PAGES,
        code=["companion/book.py", "constraints.txt"],
        notebooks=expand("build/{{profile}}/notebooks/{stem}.ipynb", stem=STEMS),
        results=expand("build/{{profile}}/results/{stem}", stem=STEMS),
    output:
        touch("build/{profile}/html/.complete"),
    threads: 2
    run:
        build = Path("build", wildcards.profile)
        executed = [Path(path) for path in input.notebooks]
        book.assemble(Path("book"), executed, build / "results", build / "book")
        book.render(build / "book", build / "html")
