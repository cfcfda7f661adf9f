"""Small networks and scenes that many tests of the library share."""

import torch
from torch import Tensor, nn

import ppp

LAYERS = ["2", "4", "6"]  # of network()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


class Function(nn.Module):
    """A function inside a forward."""

    def __init__(self, function, text: str = "") -> None:
        super().__init__()
        self.function, self.text = function, text

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.text


def sequential(*modules: nn.Module | object) -> nn.Sequential:
    """Return modules, or plain functions, one after the other, in eval mode."""
    parts = (m if isinstance(m, nn.Module) else Function(m) for m in modules)
    return nn.Sequential(*parts).eval()


def network() -> nn.Sequential:
    """Strides 1, 2 and 4; batch norm, ReLUs in place, a pool; maps at "2", "4" and "6"."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 4, 3, padding=1),
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model.eval()


def scenes(count: int = 2, height: int = 96, width: int | None = None) -> dict[str, Tensor]:
    draw, width = seeded(), width or height
    return {f"scene {i}": torch.randn(3, height, width, generator=draw) for i in range(count)}


def windows(coverage, size, count=2, per_picture=4, side=160) -> ppp.Windows:
    """Return windows of noise."""
    return ppp.cut_windows(scenes(count, side), size, coverage, per_picture=per_picture, seed=0)


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether a model has the state it had, and no hooks."""
    after = model.state_dict()
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return not hooked and all(torch.equal(after[key], before[key]) for key in before)
