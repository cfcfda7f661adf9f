"""What is asked of a chapter is held against networks, layers and photographs before it runs.

A kernel takes ten seconds to load its libraries, and a chapter minutes to reach a cell that refuses
something. Everything here is found from names, and from the heads of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from companion.notebooks.sources import code_cells
from ppp.errors import ParameterError, PPPError, shown, unknown

_SEEDED = re.compile(r"load_network\([^()]*seed=seed\)")
"""In a chapter whose networks are those of its parameter ``seed``."""

# That of studies.networks, repeated so that photographs are looked up without loading networks.
PLANE_WINDOW = 96

_PIXELS = "pixels"
"""Among the networks of a read-out: no network."""


def check(notebook: Path, values: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Refuse what a chapter's cells would refuse, or fail by.

    Parameters
    ----------
    notebook : Path
    values : mapping of str to object
        All its parameters, as it would run.
    changed : mapping of str to object
        Those that are not the notebook's own; only what these touch is looked at.

    Raises
    ------
    ParameterError
        Names the parameter, its value and what was expected.
    """
    about = {
        _schemes: ("scheme", "schemes"),
        _amount: ("amount", "window", "schemes"),
        _photographs: ("photos", "photograph", "window", "amount", "network"),
        _networks: ("network", "networks", "imagenet_networks", "weights", "seed", "seeds"),
        _layers: ("layer", "layers", "network", "networks"),
        _trained: ("family", "schemes", "seeds", "layers"),
        _sweep: ("sweep",),
    }
    for rule, names in about.items():
        if any(name in changed for name in names):
            rule(notebook, values)


@contextmanager
def _about(name: str, value: Any) -> Iterator[None]:
    """Name the parameter in an error of the library."""
    try:
        yield
    except PPPError as error:
        raise ParameterError(f"parameter {name} = {shown(value)}: {error}") from None


def _schemes(notebook: Path, values: Mapping[str, Any]) -> None:
    for name in ("scheme", "schemes"):
        if "nan" in (given := values.get(name, ())):
            raise ParameterError(
                f"parameter {name} = {shown(given)}: nan marks cells and cannot be measured; "
                "leave it out"
            )


def _amount(notebook: Path, values: Mapping[str, Any]) -> None:
    """Refuse an amount that a scheme cannot supply from a window."""
    if {"amount", "window", "schemes"} <= values.keys():
        import torch

        from ppp.padding import pad

        line = torch.zeros(1, 1, values["window"], 1)
        for scheme in values["schemes"]:
            with _about("amount", values["amount"]):
                pad(line, (0, 0, values["amount"], values["amount"]), scheme)


def _photographs(notebook: Path, values: Mapping[str, Any]) -> None:
    if "photos" not in values:
        return
    from studies.pictures import photographs

    with _about("photos", values["photos"]):
        sizes = photographs.sizes(values["photos"])
    side = values.get("window", 1) + 2 * values.get("amount", 0)
    if "photograph" in values:
        if "network" in values and values["network"].startswith("plane-"):
            side = max(side, PLANE_WINDOW)
        with _about("photograph", values["photograph"]):
            photographs.name_of_one(sizes, values["photograph"], side, side)
    elif not any(min(size) >= side for size in sizes.values()):
        largest = max(min(size) for size in sizes.values())
        raise ParameterError(
            f"parameter window = {values['window']}: no photograph is so large; "
            f"expected at most {largest}, less the surroundings that the network needs"
        )


def _networks(notebook: Path, values: Mapping[str, Any]) -> None:
    asked = {name: values[name] for name in ("network", "networks") if name in values}
    if not asked and "imagenet_networks" not in values:
        return
    from studies.networks import load

    code = "\n".join(code_cells(notebook).values())
    seeds = [values.get("seed", 0)] if _SEEDED.search(code) else [0]
    if "networks" in values and "family" in values:  # of each training
        seeds = values.get("seeds", seeds)
    for parameter, given in asked.items():
        alone = parameter == "network" or "network" not in values
        weights = values.get("weights", "random") if alone else "random"
        for name in [given] if parameter == "network" else given:
            if name == _PIXELS and "readout" in values:
                continue
            for seed in seeds:
                try:
                    load.check(name, weights, seed=seed)
                except PPPError as error:
                    _raise_about(parameter, values, name, weights, seed, str(error))
    for name in values.get("imagenet_networks", ()):
        with _about("imagenet_networks", values["imagenet_networks"]):
            load.check(name, "random")


def _raise_about(
    parameter: str, values: Mapping[str, Any], name: str, weights: str, seed: int, said: str
) -> None:
    """Blame the parameter at fault: the name of a network, its weights, or the seed."""
    from studies.networks import load

    at_fault = parameter
    for other, trial in (("seed", (name, weights, 0)), ("weights", (name, "random", 0))):
        try:
            load.check(trial[0], trial[1], seed=trial[2])
        except PPPError:
            continue
        at_fault = "seeds" if other == "seed" and "family" in values else other
        break
    raise ParameterError(f"parameter {at_fault} = {shown(values[at_fault])}: {said}")


def _layers(notebook: Path, values: Mapping[str, Any]) -> None:
    """Refuse a layer that a network lacks."""
    layers = {name: values[name] for name in ("layer", "layers") if values.get(name)}
    networks = [values["network"]] if "network" in values else values.get("networks", [])
    if not layers or not networks:
        return
    from studies.networks import load

    for network in networks:
        if network == _PIXELS:
            continue
        modules = [name for name, _ in load.architecture(network).named_modules() if name]
        for parameter, given in layers.items():
            for layer in [given] if parameter == "layer" else given:
                if layer not in modules:
                    raise ParameterError(
                        f"parameter {parameter} = {shown(given)}: network {network!r}: "
                        f"{unknown('layer', layer, modules)}"
                    )


def _trained(notebook: Path, values: Mapping[str, Any]) -> None:
    """Refuse schemes, seeds and layers of trainings that are not among the shipped ones."""
    if "live_steps" not in values:
        return
    from studies.dynamics import design

    family, schemes, seeds = values["family"], values["schemes"], values["seeds"]
    table = design.select(design.trajectories(), family, schemes, seeds)
    with _about("layers", values["layers"]):
        design.layers_of(table, values["layers"])


def _sweep(notebook: Path, values: Mapping[str, Any]) -> None:
    from studies.sweeps import tables

    with _about("sweep", values["sweep"]):
        tables.load(values["sweep"])
