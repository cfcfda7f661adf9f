"""The repository agrees with itself: notebooks, requirements, floors, and the book's pages."""

import ast
import re
import tomllib

import nbformat
import pandas as pd
import pytest
import yaml

from companion import notebooks
from companion.book import plan
from companion.notebooks.places import PLACES
from studies import claims
from studies.networks.pretrained import pretrained_networks
from studies.paths import ROOT
from studies.pictures.photographs import scikit_image_photographs

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["cluster"], *EXTRAS["test"][1:]]

# Spelled so that this file does not name what it looks for.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("conda", "anaconda", "org"),
        ("registry", "npmjs", "org"),
    )
]
MACHINE_PATHS = [f"/{top}/" for top in ("work", "opt", "root", "home", "Users")]
MACHINE_PATHS += ["/tmp/" + name for name in ("devvenv", "brief", "scratch")]
NAMED = {"Makefile", "Snakefile", "run", "LICENSE", "NOTICE"}
TEXT = {".py", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".txt", ".json", ".csv", ".cff", ".css"}


def tracked_text():
    """Return the text files of the checkout outside of what is built or downloaded."""
    skipped = {".git", ".venv", "build", "runs", "__pycache__", ".snakemake", ".cache", "shared"}
    for path in sorted(ROOT.rglob("*")):
        inside = set(path.relative_to(ROOT).parts)
        named = path.suffix in TEXT or path.name in NAMED
        caches = any(part.endswith(("_cache", ".egg-info")) for part in inside)
        if path.is_file() and named and not inside & skipped and not caches:
            yield path


# ---- notebooks


def per_notebook(function):
    return pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)(function)


@per_notebook
def test_notebook_source_is_clean(path):
    content = nbformat.read(path, 4)
    nbformat.validate(content)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    for cell in code:
        assert not cell.outputs and cell.execution_count is None
        assert len(cell.source.splitlines()) <= 35, cell.source[:80]
    assert "parameters" in code[0].metadata.get("tags", [])
    assert code[1].source.endswith("parameters.check()"), "all parameters are checked at once"
    assert "hide-input" in code[1].metadata.get("tags", []), "a page folds the set-up"
    assert content.metadata.kernelspec.name == notebooks.KERNEL
    assert "widgets" not in content.metadata


@per_notebook
def test_every_parameter_has_a_trailing_comment(path):
    (cell,) = [
        cell.source
        for cell in nbformat.read(path, 4).cells
        if "parameters" in cell.metadata.get("tags", [])
    ]
    lines = cell.splitlines()
    for statement in ast.parse(cell).body:
        assert "#" in lines[statement.end_lineno - 1][statement.end_col_offset :]


def test_profiles_fit_the_notebooks():
    profiles = yaml.safe_load((ROOT / "profiles.yaml").read_text())
    assert set(profiles) == {"quick", "standard", "paper"}
    stems = {path.stem: path for path in NOTEBOOKS}
    for profile, changes in profiles.items():
        assert set(changes or {}) <= set(stems), profile
        for path in NOTEBOOKS:
            notebooks.profile_values(profile, path, notebooks.defaults(path))


# ---- what lies where

TABLES = [ROOT / "README.md", ROOT / "studies" / "README.md"]
LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")


def chapters(page):
    """Return the rows of a page's table of chapters, without the head: lists of cells."""
    lines = page.read_text(encoding="utf-8").splitlines()
    first = lines.index("| place | chapter | code | data | claims | tests |") + 2
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:last]]


@pytest.mark.parametrize("page", TABLES, ids=["README", "studies"])
def test_the_table_of_chapters_is_true(page):
    known = claims.claims().values()
    tested = {claim.id: claim.chapter for claim in known if claim.tested}
    on_real = [claim.id for claim in known if isinstance(claim.real, claims.Amendment)]
    places = {}
    for place, chapter, code, data, listed, tests in chapters(page):
        ((name, _),) = LINK.findall(chapter)
        places[name] = place
        for text, target in LINK.findall(" ".join([chapter, code, data, tests])):
            assert (page.parent / target).exists(), target
            assert text in (name, target.removeprefix("../")), text
        assert all(LINK.findall(cell) for cell in (code, data, tests)), name
        of_chapter = ", ".join(claim for claim, where in tested.items() if where == name)
        others = {"claims-ledger": "all", "imagenet-networks": ", ".join(on_real)}
        assert listed == others.get(name, of_chapter)
    assert places == PLACES


def test_every_folder_of_the_studies_is_explained():
    page = ROOT / "studies" / "README.md"
    linked = {(page.parent / target).resolve() for _, target in LINK.findall(page.read_text())}
    assert {init.parent for init in page.parent.glob("*/__init__.py")} <= linked


def test_the_readme_s_surprise_is_what_the_shipped_tables_say():
    table = pd.read_csv(ROOT / "data" / "bhv" / "accuracy.csv.gz")
    moved = table[(table["variant"] == "F-zero") & (table["shift"] == 16)]
    published = moved[(moved["split"] == "leaked") & (moved["epochs"] == 50) & ~moved["shuffled"]]
    means = (100 * published.groupby("condition")["accuracy"].mean()).round(1)
    words = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"in {means['published']} % of its images" in words
    assert f"the black one it is {means['canvas-1']} %" in words


# ---- the book


def test_table_of_contents_lists_pages_that_exist():
    from sphinx_external_toc.parsing import parse_toc_yaml

    for page in parse_toc_yaml(ROOT / "book" / "_toc.yml"):
        source = ROOT / f"{page}.ipynb" if page.startswith("notebooks/") else ROOT / "book" / page
        assert source.exists() or source.with_suffix(".md").exists(), page


PAGES = sorted((ROOT / "book").glob("*.md"))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_a_link_leads_to_a_page_that_exists(page):
    for _, target in re.findall(r"\[([^]]*)\]\((?!https?:|#)([^)#\s]+)[^)]*\)", page.read_text()):
        folders = [page.parent, ROOT] if page.parent.name == "book" else [page.parent]
        ends = ("", ".md", ".ipynb")
        assert any((folder / (target + end)).exists() for folder in folders for end in ends), target


def test_every_page_is_in_the_book():
    text = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    assert [page.stem for page in PAGES if not re.search(rf": {page.stem}$", text, re.M)] == []


def test_every_notebook_is_in_the_book():
    assert set(plan.stems(ROOT / "book" / "_toc.yml")) == {path.stem for path in NOTEBOOKS}


def test_book_renders_and_does_not_execute():
    config = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    assert config["sphinx"]["config"]["nb_execution_raise_on_error"] is True
    assert "sphinx-mathjax-offline" in config["sphinx"]["extra_extensions"]


# ---- requirements


def name(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_constraints_pin_every_direct_requirement():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = [name(pin) for pin in pins]
    assert len(set(names)) == len(names)
    assert {name(requirement) for requirement in REQUIREMENTS} <= set(names)


def test_environment_agrees_with_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip["pip"] == ["-c constraints.txt", "-e .[test]"]


# ---- what must not be in any file


def test_no_registry_host_and_no_path_of_a_machine():
    for path in tracked_text():
        text = path.read_text(encoding="utf-8")
        found = [word for word in REGISTRY_HOSTS + MACHINE_PATHS if word in text]
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_no_photograph_in_the_checkout():
    pictures = [
        path
        for path in ROOT.rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".heic")
        and not {".git", ".venv", "build", "runs", "shared"} & set(path.relative_to(ROOT).parts)
    ]
    assert pictures == []


def test_whose_weights_are_measured_is_in_the_notice():
    notice = " ".join((ROOT / "NOTICE").read_text(encoding="utf-8").split())
    for record in pretrained_networks().values():
        facts = record["authors"].split(",")[0], record["licence"], record["package"].split("=")[0]
        assert [fact for fact in facts if fact not in notice] == []


def test_every_photograph_and_folder_of_data_is_in_the_notice():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    shipped = [f"data/{path.name}" for path in (ROOT / "data").iterdir()]
    names = [photograph.name for photograph in scikit_image_photographs()] + shipped
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", notice)] == []
