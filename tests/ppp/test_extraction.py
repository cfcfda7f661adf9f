import copy

import checks
import pytest
import torch
from torch import nn
from toys import LAYERS, noise, unchanged

import ppp
from ppp import extraction, passes
from ppp.errors import LayerError, PPPError
from ppp.extraction import Tap, layout

Sequential, Conv = nn.Sequential, nn.Conv2d


def refused(model, layers, x=None) -> str:
    x = torch.zeros(1, 3, 32, 32) if x is None else x
    return checks.refused(ppp.extract, model.eval(), x, layers, error=LayerError)


def test_an_in_place_relu_cannot_change_what_was_taken(resnet18):
    x = noise(1, 3, 64, 64)
    maps = ppp.extract(resnet18, x, ["bn1", "relu", "layer1.0.bn2", "layer1.0"])
    assert (maps["bn1"] < 0).any() and (maps["relu"] >= 0).all()
    with torch.no_grad():
        expected = resnet18.bn1(resnet18.conv1(x))
        assert torch.equal(maps["bn1"], expected)
        assert torch.equal(maps["relu"], expected.relu())
    assert (maps["layer1.0.bn2"] < 0).any() and (maps["layer1.0"] >= 0).all()
    assert list(maps) == ["bn1", "relu", "layer1.0.bn2", "layer1.0"]


def test_the_order_is_the_one_asked_for(resnet18):
    assert list(ppp.extract(resnet18, torch.zeros(1, 3, 64, 64), ["layer2", "conv1"])) == [
        "layer2",
        "conv1",
    ]


def test_the_rest_of_the_network_runs_once_and_may_fail():
    runs = []

    class Head(nn.Module):
        def forward(self, x):
            runs.append(x)
            raise AssertionError("the head ran")

    model = Sequential(Conv(3, 4, 3), nn.ReLU(), Head()).eval()
    tap = Tap(model, ["1"])
    for _ in range(3):
        tap(torch.zeros(2, 3, 8, 8), lambda *_: None)
    assert len(runs) == 1
    assert ppp.extract(model, torch.zeros(2, 3, 8, 8), "1")["1"].shape == (2, 4, 6, 6)
    fixed = Sequential(Conv(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 2)).eval()
    assert ppp.extract(fixed, torch.zeros(1, 3, 20, 20), ["0"])["0"].shape == (1, 4, 20, 20)


def test_no_gradient_is_kept():
    maps = ppp.extract(Conv1().eval(), torch.zeros(1, 3, 8, 8, requires_grad=True), ["conv"])
    assert not maps["conv"].requires_grad


class Conv1(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.spare = Conv(3, 3, 3), Conv(3, 3, 3)

    def forward(self, x):
        return self.conv(x)


class Twice(Conv1):
    def forward(self, x):
        return self.spare(self.conv(self.conv(x)))


class Broken(Conv1):
    def forward(self, x):
        self.conv(x)
        raise RuntimeError("broken on purpose")


def test_a_layer_that_runs_twice_is_refused():
    assert "runs more than once" in refused(Twice(), ["conv", "spare"])


def test_a_layer_that_runs_again_behind_the_last_one_is_refused(resnet18):
    """layer1.0.relu runs after the first batch norm, and again after the sum."""
    x = torch.zeros(1, 3, 64, 64)
    assert "'layer1.0.relu' runs more than once" in refused(resnet18, ["layer1.0.relu"], x)
    with pytest.raises(LayerError, match="runs more than once"):
        ppp.coverage(resnet18, ["layer1.0.relu"], 64)
    assert "'conv' runs more than once" in refused(Twice(), ["conv"])


def test_train_mode_is_refused_and_changes_nothing():
    model = Sequential(Conv(3, 4, 3), nn.BatchNorm2d(4))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PPPError, match="train mode"):
        ppp.extract(model, torch.ones(2, 3, 8, 8), ["1"])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_what_stands_around_the_call_changes_no_feature(resnet18):
    x = noise(1, 3, 64, 64)
    expected = ppp.extract(resnet18, x, ["layer2"])["layer2"]
    with torch.inference_mode():
        inside = ppp.extract(resnet18, x * 1, ["layer2"])["layer2"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = ppp.extract(resnet18, x, ["layer2"])["layer2"]
    assert torch.equal(inside, expected) and not inside.is_inference()
    assert torch.equal(rounded, expected)


def test_a_layer_that_does_not_run_is_refused():
    assert "['spare'] did not run" in refused(Conv1(), ["conv", "spare"])


def test_unknown_layers_are_refused_with_the_nearest_name(resnet18):
    assert "did you mean 'layer1'?" in refused(resnet18, ["layr1"])
    assert "did you mean 'layer4.1.bn2'" in refused(resnet18, ["layer4.1.bn"]) or (
        "did you mean 'layer4.1.bn1'" in refused(resnet18, ["layer4.1.bn"])
    )
    assert "unknown layer ''" in refused(resnet18, [""])
    assert "no layer given" in refused(resnet18, [])
    assert "twice" in refused(resnet18, ["conv1", "conv1"])


def test_what_is_no_map_is_refused():
    flat = Sequential(Conv(3, 4, 3), nn.Flatten(), nn.Linear(4 * 900, 2))
    assert "layer '1' gives (1, 3600)" in refused(flat, ["1"])
    several = Sequential(Conv(3, 4, 3), nn.MaxPool2d(2, return_indices=True))
    assert "layer '1' gives tuple" in refused(several, ["1"])


def test_hooks_are_removed_in_every_case():
    for model, layers in ((Twice(), ["conv", "spare"]), (Conv1(), ["conv", "spare"])):
        refused(model, layers)
        assert unchanged(model, {})
    broken = Broken().eval()
    with pytest.raises(RuntimeError, match="on purpose"):
        ppp.extract(broken, torch.zeros(1, 3, 8, 8), ["spare"])
    assert unchanged(broken, {})
    working = Conv1().eval()
    ppp.extract(working, torch.zeros(1, 3, 8, 8), ["conv"])
    assert unchanged(working, {})


def test_an_error_of_the_consumer_is_not_swallowed():
    model = Conv1()

    def consume(layer, output):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Tap(model, ["conv"])(torch.zeros(1, 3, 8, 8), consume)
    assert unchanged(model, {})


# --- channels last --------------------------------------------------------------------------


class Viewed(nn.Module):
    """Works on maps that lie in order only."""

    def forward(self, x):
        return x.view(len(x), -1).view_as(x)


@pytest.mark.parametrize("apart", [0.0, 1e-7])
def test_channels_come_last_only_where_every_bit_stays(monkeypatch, apart):
    model = Sequential(Conv(3, 6, 3, padding=1, groups=3)).eval()
    formats = []

    def extracted(_model, x, layers):
        formats.append(x.is_contiguous(memory_format=torch.channels_last))
        return {layers[0]: torch.full((1, 6, 8, 8), 1.0 + apart * formats[-1])}

    monkeypatch.setattr(extraction, "extract", extracted)
    expected = torch.contiguous_format if apart else torch.channels_last
    assert layout(model, ["0"], 3, 8, 8) == expected and formats == [False, True]


@pytest.mark.parametrize("scheme", ["own", "reflect", "circular", "randn"])
def test_a_measurement_is_the_same_with_channels_last(monkeypatch, model, windows, scheme):
    found, formats = [], [torch.contiguous_format, torch.channels_last]
    inputs = []
    for format_ in formats:
        monkeypatch.setattr(passes, "layout", lambda *_, last=format_: last)
        with nn.modules.module.register_module_forward_pre_hook(lambda _, x: inputs.append(x[0])):
            found.append(ppp.measure(model, windows, LAYERS, scheme))
        last = [x.is_contiguous(memory_format=torch.channels_last) for x in inputs]
        assert any(last) == (format_ == torch.channels_last)
        inputs.clear()
    for one, other in zip(*(result.values() for result in found)):
        torch.testing.assert_close(one.pattern, other.pattern, rtol=1e-4, atol=1e-6)
        assert other.null_test.passed == one.null_test.passed
        assert other.snr.value == pytest.approx(one.snr.value, rel=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        Sequential(Conv(3, 8, 3)),
        Sequential(Conv(3, 6, 3, groups=3)).double(),
        Sequential(Conv(3, 6, 3, groups=3), Viewed()),
    ],
)
def test_other_networks_keep_their_maps_in_order(model):
    layers = [str(len(model) - 1)]
    assert layout(model.eval(), layers, 3, 64, 64) == torch.contiguous_format
