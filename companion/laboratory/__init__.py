"""A page in which a network runs on the reader's own photograph: its scripts, one idea a file.

The engine is held against PyTorch by tests. A new mode is a script, a line in :data:`MODES` and a
section in `laboratory.html.j2`.
"""

from pathlib import Path

MODES = {
    "explore": "Explore a window",
    "play": "Play",
    "guess": "Guess the cell",
    "corner": "The BHV corner",
}
"""The script and section of each mode, and its name."""

_ENGINE = "padding convolution network surroundings measurement running redgreen worker"
_HERE = Path(__file__).parent
ENGINE = [_HERE / f"{name}.js" for name in _ENGINE.split()]
"""The scripts that the page and its worker share, in order."""
SCRIPTS = [_HERE / f"{name}.js" for name in ("view", "pictures", *MODES, "page")]
"""The scripts of the page alone, in order."""
