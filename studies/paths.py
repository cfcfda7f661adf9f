"""Where the folders of the checkout are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: notebooks, book, data and profiles lie in it."""

DATA = ROOT / "data"
"""The shipped tables, networks and patterns."""
