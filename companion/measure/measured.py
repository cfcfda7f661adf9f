"""A finished measurement, as it is written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from companion.measure.request import Request
from ppp.inventory import Audit
from ppp.results import Measurement
from studies import networks
from studies.networks import layers as layer_choice
from studies.pictures.photographs import Photograph


@dataclass(frozen=True)
class Measured:
    """A finished measurement with all that its report tells.

    Attributes
    ----------
    request : Request
    command : str
        To measure the same again.
    network : Network
    weights_sha256 : str
        Of the state, whichever file it came from.
    choice : studies.networks.layers.Choice
    audit : Audit
    need : (height, width)
        Smallest photograph that serves (px).
    used : list of Photograph
    left_out : list of (name, reason)
    measurement : Measurement
    made_with : dict
        Versions and commit.
    """

    request: Request
    command: str
    network: networks.Network
    weights_sha256: str
    choice: layer_choice.Choice
    audit: Audit
    need: tuple[int, int]
    used: list[Photograph]
    left_out: list[tuple[str, str]]
    measurement: Measurement
    made_with: dict[str, object]

    def document(self) -> dict[str, object]:
        """Return everything but the patterns, ready for JSON: NaN and infinity become null."""
        network = self.network
        return plain(
            {
                "command": self.command,
                "request": asdict(self.request),
                "network": {
                    "name": network.name,
                    "weights": network.weights,
                    "weights_sha256": self.weights_sha256,
                    "window_px": network.window,
                    "mean": network.mean,
                    "std": network.std,
                    "provenance": network.provenance,
                },
                "layers": {
                    "chosen": list(self.choice.layers),
                    "rule": self.choice.rule,
                    "refused": self.choice.refused,
                },
                "photographs": {
                    "size_needed_px": self.need,
                    "used": [
                        {
                            "name": p.name,
                            "height": p.height,
                            "width": p.width,
                            "sha256": p.sha256,
                            "source": p.source,
                        }
                        for p in self.used
                    ],
                    "left_out": [{"name": n, "reason": why} for n, why in self.left_out],
                },
                "results": _records(self.measurement.table()),
                "coverage": _records(self.measurement.coverage.table()),
                "audit": _records(self.audit.table()),
                "provenance": self.measurement.provenance,
                "made_with": self.made_with,
            }
        )


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    return frame.to_dict("records")


def plain(value: object) -> object:
    """Return a value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
