"""A finished measurement, as it is written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from companion.measure.request import Request
from ppp.inventory import Audit
from ppp.results import Measurement
from studies import networks
from studies.networks import layers as layer_choice
from studies.pictures.photographs import Photograph

_PHOTOGRAPH = ("name", "height", "width", "sha256", "source")


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
        network, choice = self.network, self.choice
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
                "layers": {"chosen": choice.layers, "rule": choice.rule, "refused": choice.refused},
                "photographs": {
                    "size_needed_px": self.need,
                    "used": [{key: getattr(p, key) for key in _PHOTOGRAPH} for p in self.used],
                    "left_out": [{"name": n, "reason": why} for n, why in self.left_out],
                },
                "results": self.measurement.table().to_dict("records"),
                "coverage": self.measurement.coverage.table().to_dict("records"),
                "audit": self.audit.table().to_dict("records"),
                "provenance": self.measurement.provenance,
                "made_with": self.made_with,
            }
        )


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
