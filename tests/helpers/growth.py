"""How much a process grows by while it measures, against the estimate; prints JSON, in bytes."""

import ctypes
import json
from pathlib import Path

import torch
from torch import nn

import ppp


class Dense(nn.Module):
    """Every convolution reads the outputs of all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 8 * i, 8, 3, padding=1) for i in range(6))
        self.end = nn.ReLU()

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.end(x)


class UNet(nn.Module):
    """Early maps are kept until they are joined to late ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.down, self.up = nn.MaxPool2d(2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.last = nn.Conv2d(32, 8, 3, padding=1)

    def forward(self, x):
        kept = self.first(x).relu()
        low = self.second(self.down(kept)).relu()
        return self.last(torch.cat([kept, self.up(low)], 1))


def early() -> nn.Module:
    """Return the beginning of a VGG: large early maps."""
    convolutions = (nn.Conv2d(i, 32, 3, padding=1) for i in (3, 32))
    parts = [part for c in convolutions for part in (c, nn.ReLU(inplace=True))]
    return nn.Sequential(*parts, nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1))


def resident(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])


def grown(model: nn.Module, layer: str, coverage, memory) -> dict[str, object]:
    pixels = torch.randn(3, 512, 576, generator=torch.Generator().manual_seed(0))
    windows = ppp.cut_windows({"noise": pixels}, 64, coverage, per_picture=50, seed=0)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    options = {"coverage": coverage, "memory": memory, "groups": 1}
    measured = ppp.measure(model, windows, [layer], "zeros", **options)
    made = measured.provenance
    return {
        "grown": resident("VmHWM") - before,
        "estimate": made["memory_estimate"],
        "tiles": made["tiles"],
        "bound": made["memory"],
    }


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for name, model, layer in (
        ("VGG", early(), "5"),
        ("dense", Dense(), "end"),
        ("U", UNet(), "last"),
    ):
        coverage = ppp.coverage(model.eval(), [layer], 64)
        grown(model, layer, coverage, float("inf"))  # what PyTorch takes once comes on top
        whole = grown(model, layer, coverage, float("inf"))
        found |= {
            name: whole,
            f"{name} bound": grown(model, layer, coverage, whole["estimate"] // 2),
        }
    print(json.dumps(found))


main()
