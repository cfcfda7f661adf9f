"""The chapters' places. A chapter is known by its name; its place may change."""

import re

PLACES = {
    "padding-schemes": "01",
    "optimal-padding-and-coverage": "02",
    "extracting-ppp": "03",
    "ppp-metrics": "04",
    "posenet-variance": "05",
    "bhv-confounders": "06",
    "imagenet-networks": "07",
    "training-dynamics": "08",
    "your-own-network": "10",
    "claims-ledger": "11",
    "sweeps": "A",
    "paper-on-scale": "B",
}
"""Name -> place: a number, or the letter of an appendix. 09 is free."""


def name_of(text: str) -> str:
    """Return the name of the chapter at a place, or a name without the place in front of it.

    Examples
    --------
    >>> [name_of(text) for text in ("03", "3", "03-extracting-ppp", "a", "extracting")]
    ['extracting-ppp', 'extracting-ppp', 'extracting-ppp', 'sweeps', 'extracting']
    """
    at = {place: name for name, place in PLACES.items()}
    place = text.upper().zfill(2) if text.isdigit() else text.upper()
    return at.get(place) or re.sub(r"^(\d+|[A-Z])-", "", text)
