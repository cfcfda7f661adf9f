"""The floors of the house: an import goes down only, and there is no circle."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

from studies.paths import ROOT

FLOORS = [
    ["ppp"],
    ["studies.paths", "studies.stats"],
    ["studies.storage"],
    ["studies.pictures", "studies.claims", "studies.results", "studies.padding"],
    ["studies.parameters"],
    ["studies.jobs"],
    ["studies.figures", "studies.networks", "studies.runs"],
    [
        "studies.bhv",
        "studies.dynamics",
        "studies.patterns",
        "studies.pretrained",
        "studies.survey",
        "studies.sweeps",
    ],
    ["studies.posenet"],
    ["studies.ledger", "studies.scale"],
    ["studies.evidence"],
    ["companion.processes", "companion.quantities", "companion.templates"],
    ["companion.notebooks"],
    ["companion.course", "companion.laboratory", "companion.measure"],
    ["companion.book", "companion.compare", "companion.sweeps"],
    ["companion.cli"],
    ["companion.__main__"],
    ["benchmarks"],
]
"""From the bottom up. Between two rooms of one floor there is no import."""

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("ppp", "studies", "companion", "benchmarks")
    for path in sorted((ROOT / top).rglob("*.py"))
}
EMPTY = {name for name, path in SOURCES.items() if not ast.parse(path.read_bytes()).body[1:]}
"""Packages that hold no code."""


def imports(name):
    """Return the modules of the project that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one for one in submodules if one in SOURCES}
            if submodules - SOURCES.keys():
                found.add(node.module)
    return (found & SOURCES.keys()) - {name} - EMPTY


def place(name):
    """Return the floor and the room of a module; the longest name that fits counts."""
    rooms = [(room, floor) for floor, rooms in enumerate(FLOORS) for room in rooms]
    fitting = [(room, floor) for room, floor in rooms if f"{name}.".startswith(f"{room}.")]
    assert fitting, f"{name} has no place in the house"
    room, floor = max(fitting, key=lambda pair: len(pair[0]))
    return floor, room


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - EMPTY))
def test_imports_go_down(name):
    floor, room = place(name)
    for other in imports(name):
        below, its_room = place(other)
        assert below < floor or its_room == room, f"{name} imports {other}"


def test_no_circle():
    try:
        tuple(TopologicalSorter({name: imports(name) for name in SOURCES}).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
