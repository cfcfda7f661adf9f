"""What ``ppp measure`` is asked to do, read from its options without loading PyTorch."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from companion import notebooks
from companion.quantities import read_bytes
from ppp.errors import ParameterError, first_line, shown
from studies.parameters import SCHEMES, check_whole
from studies.storage import documents

OWN = "own"
"""Among the schemes: the network as it is; a test keeps it equal to ppp.measurement.OWN."""

_MANY = 2**31 - 1
"""Windows, or pixels of a side, that nobody has."""


@dataclass(frozen=True)
class Request:
    """What is to be measured, read from the command line; see ``ppp measure --help``."""

    network: str
    weights: str = "random"
    layers: str | tuple[str, ...] = "auto"
    schemes: tuple[str, ...] = (OWN,)
    photos: str = ""
    per_photo: int = 64
    window: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    seed: int = 0
    device: str = "cpu"
    batch_size: int = 8
    memory: float | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Request:
        """Check what can be checked without the network.

        Parameters
        ----------
        settings : mapping of str to object
            Fields by name, as the command line or a file of settings gives them: a list may be
            a text with commas.

        Raises
        ------
        PPPError
            The first one that is not as expected, by the name of its option.
        """
        given = {entry.name: entry.default for entry in fields(cls)} | dict(settings)
        if given["photos"]:
            documents.as_path(given["photos"], "--photos", ParameterError)
        for name in ("per_photo", "batch_size", "window"):
            if name != "window" or given[name] is not None:
                check_whole(name.replace("_", "-"), given[name], 1, _MANY)
        check_whole("seed", given["seed"], 0)
        _check_device(given["device"])
        layers = _names("layers", given["layers"])
        memory = math.inf if given["memory"] == "inf" else given["memory"]
        checked = {
            "network": str(given["network"]),
            "weights": str(given["weights"]),
            "layers": "auto" if layers == ("auto",) else layers,
            "schemes": tuple(dict.fromkeys(map(_scheme, _names("schemes", given["schemes"])))),
            "mean": _three("mean", given["mean"]),
            "std": _three("std", given["std"], positive=True),
            "memory": memory if memory in (None, math.inf) else read_bytes("--memory", memory),
        }
        return cls(**given | checked)

    def command(self, output: Path) -> str:
        """Return the command that measures the same again, with all that is not a default."""
        words = ["ppp", "measure", self.network]
        for entry in fields(self)[1:]:
            value = getattr(self, entry.name)
            if value != entry.default:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                option = f"--{entry.name.replace('_', '-')}"
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
        return shlex.join([*words, "--output", str(output)])

    def output(self) -> Path:
        """Return the folder for the results: named after what the numbers depend on."""
        name = re.sub(r"[^\w.-]+", "-", Path(self.network).name).strip("-.") or "network"
        how = ("device", "batch_size", "memory")
        settings = {key: value for key, value in asdict(self).items() if key not in how}
        return Path("runs", f"measure-{name}-{notebooks.digest(settings)}")


def _names(option: str, text: str | Sequence[str]) -> tuple[str, ...]:
    parts = text.split(",") if isinstance(text, str) else map(str, text)
    names = tuple(part.strip() for part in parts)
    if not all(names):
        raise ParameterError(f"--{option} {shown(text)}: expected names with commas between, a,b,c")
    return names


def _scheme(text: str) -> str:
    if text == "nan":
        raise ParameterError("--schemes nan: it marks cells and cannot be measured; leave it out")
    if text in (OWN, *SCHEMES):
        return text
    from ppp.padding import Scheme  # loads PyTorch, so only for an option in brackets

    return str(Scheme.parse(text))


def _three(
    option: str, text: str | Sequence[float] | None, *, positive: bool = False
) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(map(float, text.split(",") if isinstance(text, str) else text))
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (1, 3) or not all(
        math.isfinite(v) and (v > 0 or not positive) for v in values
    ):
        kind = "three numbers above 0" if positive else "three numbers"
        raise ParameterError(
            f"--{option} {shown(text)}: expected {kind}, r,g,b, for pixels in [0, 1]; for grey, one"
        )
    return values


def _check_device(name: str) -> None:
    if name == "cpu":
        return
    import torch

    try:
        torch.empty(1, dtype=torch.float64, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ParameterError(
            f"--device {shown(name)} cannot be used: {first_line(error)}; expected cpu, or cuda "
            "where there is one"
        ) from None
