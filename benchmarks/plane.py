"""Measure how fast the plane renders windows, on one core.

python benchmarks/plane.py
"""

from __future__ import annotations

import torch
from shared import alternate

from studies.pictures.plane import SHAPES, render, render_windows

WINDOW, MANY, SHEET = 160, 64, 1024


def direct() -> None:
    """Render windows of scenes that have nothing in common."""
    shapes = [k % len(SHAPES) for k in range(MANY)]
    render_windows(range(MANY), shapes, [0] * MANY, [0] * MANY, WINDOW)


def shared_sheet() -> None:
    """Render one sheet and cut overlapping windows out of it; the sheet counts."""
    sheet = render(3, "star", 0, 0, SHEET, SHEET)
    places = torch.randint(SHEET - WINDOW, (2, MANY), generator=torch.Generator().manual_seed(0))
    windows = sheet.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
    windows[:, places[0], places[1]].transpose(0, 1).contiguous()


def main() -> None:
    """Print windows a second."""
    torch.set_num_threads(1)
    sheets = f"{MANY} windows cut from one sheet of {SHEET} px"
    spent = alternate({f"direct rendering, {MANY} scenes": direct, sheets: shared_sheet}, 6)
    for name, seconds in spent.items():
        print(f"{name}: {MANY / seconds['wall']:.0f} windows of {WINDOW} px a second")


if __name__ == "__main__":
    main()
