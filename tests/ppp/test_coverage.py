import copy
import math
from fractions import Fraction

import checks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from toys import Function, noise, seeded, sequential, unchanged

import ppp
from ppp.errors import LayerError, MarginError, PPPError
from ppp.influence import Coverage
from ppp.operators import watch

Sequential, Conv = nn.Sequential, nn.Conv2d


def refused(model, layers, size=32, error=MarginError) -> str:
    return checks.refused(ppp.coverage, model.eval(), layers, size, error=error)


# --- known values ------------------------------------------------------------------------


def test_resnet18_at_224(resnet18):
    found = ppp.coverage(resnet18, ["conv1", "layer1", "layer3", "layer4"], 224)
    table = found.table().set_index("layer")
    assert table.loc["layer1", ["clean_cells", "height", "width"]].tolist() == [2025, 56, 56]
    assert table.loc["layer3", ["clean_cells", "height", "width"]].tolist() == [1, 14, 14]
    assert table.loc["layer4", ["clean_cells", "height", "width"]].tolist() == [0, 7, 7]
    assert [c.stride[0] for c in found.values()] == [2, 4, 16, 32]
    assert found["conv1"].touched == (2, 1, 2, 1)  # stride 2 never reads the far side's third
    assert found["layer1"].clean_fraction == pytest.approx(2025 / 3136)
    assert found.stride == (32, 32) and found.input_size == (224, 224)
    assert found.margin == found["layer4"].margin


def test_vgg16_at_224():
    plan = torchvision.models.vgg.cfgs["D"]  # coverage knows no widths: two channels do
    narrow = torchvision.models.vgg.make_layers([p if p == "M" else 2 for p in plan])
    (layer,) = ppp.coverage(narrow.eval(), ["30"], 224).values()
    assert int((~layer.influence).sum()) == 1 and layer.influence.shape == (7, 7)
    assert layer.stride == (32, 32)


@pytest.mark.nightly
@pytest.mark.slow
def test_functional_paddings_are_covered_in_inception():
    model = torchvision.models.inception_v3(weights=None, init_weights=False).eval()
    found = ppp.coverage(model, ["Mixed_5b", "Mixed_5d"], 299)
    assert found["Mixed_5b"].stride == (8, 8)
    # each block reads two cells further: a 5 x 5 convolution, or two of 3 x 3
    reached = zip(found["Mixed_5b"].touched, found["Mixed_5d"].touched)
    assert [far - near for near, far in reached] == [4, 4, 4, 4]


def test_functional_pools_are_covered():
    pooled = after(lambda x: F.avg_pool2d(x, 5, 1, 2))
    assert ppp.coverage(pooled, ["1"], 32)["1"].touched == (2, 2, 2, 2)


# --- margins against brute force ---------------------------------------------------------


def after(function) -> nn.Module:
    """Return a 3 x 3 convolution without padding, after a function."""
    return sequential(function, Conv(3, 4, 3))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.long = Sequential(
            Conv(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(True), Conv(6, 6, 3, padding=1)
        )
        self.short = Conv(3, 6, 1, 2)

    def forward(self, x):
        return F.relu(self.long(x) + self.short(x), inplace=True)


def networks() -> dict[str, tuple[nn.Module, str]]:
    torch.manual_seed(0)
    return {
        "one convolution": (Sequential(Conv(3, 4, 3, padding=1)), "0"),
        "valid": (Sequential(Conv(3, 4, 3), nn.ReLU()), "1"),
        "full": (Sequential(Conv(3, 4, 3, padding=2), nn.Tanh()), "1"),
        "uneven": (Sequential(Conv(3, 4, (5, 3), padding=(2, 0)), nn.ZeroPad2d((3, 0, 1, 0))), "1"),
        "same, even": (Sequential(Conv(3, 4, 4, padding="same")), "0"),
        "dilated": (Sequential(Conv(3, 4, 3, padding=3, dilation=3), Conv(4, 4, 3, 2, 1)), "1"),
        "residual": (Sequential(Residual()), "0"),
        "average pool": (Sequential(Conv(3, 4, 3, padding=1), nn.AvgPool2d(3, 2, 1)), "1"),
        "circular": (
            Sequential(Conv(3, 4, 3, padding=1, padding_mode="circular"), Conv(4, 4, 3, 2)),
            "1",
        ),
        "transposed": (
            Sequential(Conv(3, 4, 3, 4, 1), nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1)),
            "1",
        ),
        "pad function": (after(lambda x: F.pad(x, (2, 0, 1, 3), "reflect")), "1"),
        "channels last": (
            after(lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 2, 0, 1, 3)).permute(0, 3, 1, 2)),
            "1",
        ),
        "joined": (after(lambda x: torch.cat([x[:, :, -3:], x, x[:, :, :1]], 2)), "1"),
        "our pad": (after(lambda x: ppp.pad(x, (2, 0, 1, 3), "symmetric")), "1"),
        "dense": (Sequential(Conv(3, 4, 3, padding=1), nn.SiLU(), Conv(4, 4, 7, 2, 3)), "2"),
    }


WINDOW = 32


@pytest.mark.parametrize("name", networks())
@torch.no_grad()
def test_the_influence_map_is_what_padding_can_change(name):
    """Random padded values change the touched cells and no other one."""
    model, layer = networks()[name]
    model.eval()
    found = ppp.coverage(model, [layer], (WINDOW, WINDOW + 8))[layer]
    x = torch.randn(1, 3, WINDOW, WINDOW + 8, generator=seeded())
    changed = np.zeros_like(found.influence)

    def features(seed):
        generator = seeded(seed)

        def random(call):
            if not call.pads:
                return NotImplemented
            left, right, top, bottom = call.border
            sides = [max(0, side) for side in call.border]
            padded = F.pad(call.input, sides, value=torch.nan)
            draws = torch.randn(padded.shape, generator=generator) * 3
            padded = torch.where(padded.isnan(), draws, padded)
            return call.run(F.pad(padded, [min(0, s) for s in (left, right, top, bottom)]))

        with watch(random):
            return ppp.extract(model, x, [layer])[layer]

    reference = features(0)
    for seed in range(1, 9):
        changed |= ((features(seed) - reference).abs() > 1e-6).any(1)[0].numpy()
    np.testing.assert_array_equal(changed, found.influence)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (5, 3), "padding": (0, 2), "stride": (1, 3), "bias": False},
        {"kernel_size": 3, "padding": 4, "dilation": (2, 4), "stride": 2},
        {"kernel_size": 1, "stride": 3},
        {"kernel_size": 3, "padding": 1, "groups": 2},
        {"kernel_size": 7, "padding": 0, "groups": 6},
    ],
)
@torch.no_grad()
def test_nan_reaches_through_a_convolution_what_it_reaches_when_worked_out(options):
    torch.manual_seed(0)
    conv = Conv(6, 12, **options).eval()
    constant = torch.randn(3, 6, 1, 1).repeat(1, 1, 17, 14)
    constant[0, 2, 5, 6] = constant[1, :, 0] = constant[1, 4, :, 9] = torch.nan
    constant[2, 0] = torch.nan  # one channel everywhere
    found = []
    with watch(lambda call: found.append(call) or NotImplemented):
        conv(constant)
    (call,) = found
    left, right, top, bottom = call.border
    for rows, columns in ((torch.nan, torch.nan), (torch.nan, 0.0), (0.0, 0.0)):
        padded = F.pad(F.pad(constant, (0, 0, top, bottom), value=rows), (left, right, 0, 0))
        padded[..., : max(0, left)] = padded[..., padded.shape[3] - max(0, right) :] = columns
        worked_out, cheap = call.run(padded), call.filled(rows, columns)
        if cheap is NotImplemented:
            assert not call.pads and call.constant is None
            continue
        assert torch.equal(cheap.isnan(), worked_out.isnan())
        inner = ~worked_out.isnan()
        if not any(call.declared):
            torch.testing.assert_close(cheap[inner], worked_out[inner])
    assert (call.constant is None) == (conv.groups > 1)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", networks())
@torch.no_grad()
def test_margins_are_enough_and_sharp(name, axis):
    """A cut-out at the margin equals the one of a much larger scene; one cell less does not."""
    model, layer = networks()[name]
    model.eval()
    found = ppp.coverage(model, [layer], WINDOW)[layer]
    stride, size = found.stride[axis], found.influence.shape[axis]
    before, after = found.margin[2:] if axis == 0 else found.margin[:2]
    scene = noise(1, 3, 192, 192)
    start = 96

    def features(low, high):
        crop = scene.narrow(2 + axis, low, high - low)
        return ppp.extract(model, crop, [layer])[layer]

    def cut(low, high):
        return features(low, high).narrow(2 + axis, (start - low) // stride, size)

    wide = cut(0, 192)
    total = -(-(WINDOW + after) // stride) * stride
    exact = cut(start - before, start + total)
    torch.testing.assert_close(exact, wide, rtol=1e-5, atol=1e-5)
    if before:
        short = cut(start - before + stride, start + total)
        assert (short - wide).abs().max() > 1e-3
    if after:
        cells = features(start - before, start + total - stride)
        lacking = cells.narrow(2 + axis, before // stride, size - (not after))
        assert (lacking - wide).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["one convolution", "dilated", "residual", "uneven", "dense"])
def test_the_surgery_with_nan_touches_the_same_cells(name):
    model, layer = networks()[name]
    model.eval()
    found = ppp.coverage(model, [layer], 24)[layer]
    swapped = ppp.with_padding(model, "nan", pools="swap")
    maps = ppp.extract(swapped, torch.zeros(1, 3, 24, 24), [layer])[layer]
    np.testing.assert_array_equal(maps.isnan().any(1)[0].numpy(), found.influence)


@pytest.mark.nightly
def test_the_surgery_with_nan_agrees_on_resnet18(resnet18):
    layers = ["layer1", "layer2", "layer3"]
    found = ppp.coverage(resnet18, layers, 160)
    swapped = ppp.with_padding(resnet18, "nan", pools="swap")
    maps = ppp.extract(swapped, torch.zeros(1, 3, 160, 160), layers)
    for layer in layers:
        np.testing.assert_array_equal(maps[layer].isnan().any(1)[0].numpy(), found[layer].influence)


def test_the_model_is_left_as_it_was(model):
    model = copy.deepcopy(model).double()
    before = copy.deepcopy(model.state_dict())
    ppp.coverage(model, ["2", "6"], 32)
    assert unchanged(model, before) and next(model.parameters()).dtype == torch.float64


# --- the assumption: NaN goes through ----------------------------------------------------

ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh"),
    *("LeakyReLU", "LogSigmoid", "Mish", "PReLU", "ReLU", "ReLU6", "RReLU", "SELU", "SiLU"),
    *("Sigmoid", "Softmax2d", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink"),
)


def test_the_list_of_activations_is_complete():
    known = {
        name
        for name in nn.modules.activation.__all__
        if name not in ("MultiheadAttention", "Threshold", "Softmax", "LogSoftmax", "Softmin")
    }
    assert known == set(ACTIVATIONS)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", [*ACTIVATIONS, "Threshold"])
def test_every_activation_propagates_nan(name, channels_last):
    options = {"Threshold": (0.0, 0.0), "GLU": (1,)}.get(name, ())
    module = getattr(nn, name)(*options).eval()
    x = torch.zeros(1, 4, 9, 9)
    x[:, :, 2, 3] = torch.nan
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        nan = module(x).isnan()
    assert nan[:, :, 2, 3].all() and int(nan[0, 0].sum()) == 1
    if hasattr(module, "inplace"):
        module.inplace = True
        with torch.no_grad():
            assert torch.equal(module(x).isnan(), nan)


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.LPPool2d(2, 3, 1),
        nn.BatchNorm2d(4),
        nn.Upsample(scale_factor=2),
        nn.PixelShuffle(2),
        nn.Dropout(),
        nn.AdaptiveMaxPool2d(3),
    ],
)
@torch.no_grad()
def test_pools_and_layers_propagate_nan(module):
    x = torch.zeros(1, 4, 9, 9)
    x[:, :, 4, 4] = torch.nan
    assert module.eval()(x).isnan().any()


# --- no finite margin --------------------------------------------------------------------


def test_squeeze_excitation_is_refused_by_name():
    model = torchvision.models.efficientnet_b0(weights=None)
    message = refused(model, ["features.1"], 64)
    assert "'features.1'" in message and "'features.1.0.block.1" in message
    # the stem before it is fine
    assert ppp.coverage(model.eval(), ["features.0"], 64)["features.0"].stride == (2, 2)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.heads(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)


class Scaled(nn.Module):
    """Divides by the whole map's norm, with no module of its own for it."""

    def forward(self, x):
        return x / (x.norm(dim=(2, 3), keepdim=True) + 1)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.GroupNorm(2, 4), "GroupNorm"),
        (nn.InstanceNorm2d(4), "InstanceNorm2d"),
        (Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(8, 8))), "no whole stride"),
        (nn.AdaptiveAvgPool2d(7), ""),
        (nn.Upsample(size=(16, 16)), "no whole stride"),
        (Scaled(), "Scaled"),
        pytest.param(Attention(), "", marks=pytest.mark.nightly),
    ],
)
def test_layers_that_see_every_pixel_are_refused_by_name(module, named):
    model = Sequential(Conv(3, 4, 3, stride=8, padding=1), module, Conv(4, 4, 3, padding=1))
    message = refused(model, ["2"])
    assert "layer '2'" in message and "no finite margin" in message and named in message
    assert ppp.coverage(model, ["0"], 32)["0"].stride == (8, 8)


class Position(nn.Module):
    """Adds the number of the column."""

    def forward(self, x):
        return x + torch.arange(x.shape[3]) / 100


class Blocks(nn.Module):
    """Takes the mean of every 3 rows, counted from the border."""

    def forward(self, x):
        pooled = F.avg_pool2d(x, (3, 1), ceil_mode=True, count_include_pad=False)
        return pooled.repeat_interleave(3, 2)[:, :, : x.shape[2]]


@pytest.mark.parametrize("module", [Position(), Blocks()])
def test_a_layer_that_knows_where_it_lies_is_refused(module):
    torch.manual_seed(0)
    model = Sequential(Conv(3, 4, 3, 2, 1), module, Conv(4, 4, 3, padding=1))
    message = refused(model, ["0", "2"])
    assert message.startswith("layer '2' depends on where a cell lies") and "module '1'" in message


def test_a_map_that_is_enlarged_again_moves_by_the_coarser_stride():
    model, layer = networks()["transposed"]
    found = ppp.coverage(model.eval(), [layer], 32)
    assert found[layer].stride == (2, 2) and found.stride == (4, 4)
    scene = {"noise": torch.rand(3, 96, 96, generator=seeded())}
    windows = ppp.cut_windows(scene, 32, found, per_picture=16, seed=0)
    assert ppp.measure(model, windows, [layer], coverage=found)[layer].null_test.passed


def test_random_padding_moves_with_the_input():
    plain, _ = networks()["residual"]
    model = ppp.with_padding(plain.eval(), "randn")
    expected = ppp.coverage(plain, ["0"], 24)
    assert ppp.coverage(model, ["0"], 24).table().equals(expected.table())


def test_a_layer_norm_over_space_is_refused():
    model = Sequential(Conv(3, 4, 3, padding=1), nn.LayerNorm([4, 32, 32]))
    assert "1" in refused(model, ["1"], error=PPPError)


def test_train_mode_and_bad_arguments_are_refused():
    model = Sequential(Conv(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    with pytest.raises(PPPError, match="train mode"):
        ppp.coverage(model, ["0"], 16)
    assert "did you mean 'conv1'?" in refused(
        torchvision.models.resnet18(weights=None), ["conv"], error=LayerError
    )
    assert "input size 0" in refused(model, ["0"], 0, error=PPPError)
    assert "Conv2d" in refused(Sequential(nn.ReflectionPad2d(1)), ["0"], error=PPPError)
    assert "does not run" in refused(Sequential(Conv(3, 4, 9)), ["0"], 4, error=PPPError)


# --- the certificate ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def strided() -> Coverage:
    torch.manual_seed(0)
    model = Sequential(Conv(3, 4, 3, 2, 1), nn.ReLU(), Conv(4, 4, 3, 2, 1)).eval()
    return ppp.coverage(model, ["0", "2"], 16)


def test_certify_says_where_the_cut_outs_begin(strided):
    rows, columns = strided["2"].certify((12, 12), np.array([8, 12]), np.array([4, 16]))
    assert rows.tolist() == [2, 3] and columns.tolist() == [1, 4]


def test_certify_refuses_misaligned_windows(strided):
    with pytest.raises(MarginError) as caught:
        strided["2"].certify((16, 16), np.array([8, 10]), np.array([8, 8]))
    assert "vertical offset 10 px" in str(caught.value) and "stride 4" in str(caught.value)
    strided["0"].certify((16, 16), np.array([8, 10]), np.array([8, 8]))  # fine for stride 2


@pytest.mark.parametrize(("top", "left", "axis"), [(0, 8, "vertical"), (8, 0, "horizontal")])
def test_certify_refuses_too_narrow_surroundings(strided, top, left, axis):
    layer = strided["2"]
    with pytest.raises(MarginError) as caught:
        layer.certify((16, 16), np.array([top]), np.array([left]))
    assert f"4 px more are needed on the {axis} axis" in str(caught.value)
    assert "4 px before a window" in str(caught.value)


def test_certify_refuses_windows_beyond_the_far_side():
    model = Sequential(Conv(3, 4, 3, padding=1)).eval()
    layer = ppp.coverage(model, ["0"], 16)["0"]
    layer.certify((18, 18), np.array([1]), np.array([1]))
    with pytest.raises(MarginError, match="1 px more are needed on the vertical axis"):
        layer.certify((17, 18), np.array([1]), np.array([1]))
    with pytest.raises(MarginError, match="2 px more are needed on the horizontal axis"):
        layer.certify((18, 18), np.array([1]), np.array([3]))


# --- strides of any kind -----------------------------------------------------------------


class ChannelsLast(nn.Module):
    """Two groups of channels worked on apart and joined, in the order (N, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.deep = Conv(6, 6, 3, padding=1, groups=6)

    def forward(self, x):
        few, many = x.permute(0, 2, 3, 1).split((2, 6), -1)
        many = self.deep(many.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return torch.cat((few, many), -1).permute(0, 3, 1, 2)


def three(channels: int = 3, outputs: int = 8, stride: int = 1) -> nn.Module:
    return Conv(channels, outputs, 3, stride, padding=1)


ODD = {
    "max-pool of 3": (lambda: [three(), nn.MaxPool2d(3), three(8)], 3),
    "patches of 7": (lambda: [Conv(3, 8, 7, 7), Conv(8, 4, 9, padding=4)], 7),
    "patches of 14": (lambda: [Conv(3, 8, 14, 14), three(8)], 14),
    "2 times 3": (lambda: [three(stride=2), nn.MaxPool2d(3), three(8)], 6),
    "3 times 5": (lambda: [three(stride=3), Conv(8, 8, 5, 5, 2), three(8)], 15),
    "every third": (lambda: [three(), Function(lambda x: x[..., ::3, ::3]), three(8)], 3),
    "blocks of 3": (lambda: [nn.PixelUnshuffle(3), three(27)], 3),
    "3 to 2": (lambda: [three(stride=3), nn.Upsample(scale_factor=2), three(8)], Fraction(3, 2)),
    "twice as fine": (lambda: [three(), three(8, 12), nn.PixelShuffle(2)], Fraction(1, 2)),
    "3 times as fine": (lambda: [three(), nn.Upsample(scale_factor=3), three(8)], Fraction(1, 3)),
    "gaps": (lambda: [three(stride=2), nn.ConvTranspose2d(8, 4, 3, 2, 2, 1, dilation=2)], 1),
    "channels last": (lambda: [three(), ChannelsLast(), Conv(8, 4, 1)], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_the_margin_is_what_differs_between_a_crop_and_the_whole(name):
    make, stride = ODD[name]
    torch.manual_seed(0)
    model, window = nn.Sequential(*make()).double().eval(), 210
    (layer,) = list(dict(model.named_children()))[-1:]
    found = ppp.coverage(model, [layer], window)
    assert found[layer].stride == (stride, stride) and found[layer].completeness.shown
    whole = noise(1, 3, 3 * window, 3 * window).double()
    inside = slice(window, 2 * window)
    with torch.no_grad():
        crop, large = model(whole[..., inside, inside])[0], model(whole)[0]
    first, cells = int(window / stride), len(crop[0])
    differs = (crop - large[:, first : first + cells, first : first + cells]).abs().amax(0) > 1e-9
    apart = (differs & ~torch.from_numpy(found[layer].influence)).any()
    assert not apart, "a cell that is said to be clean differs"
    half = cells // 2
    rows = differs[:, half - 2 : half + 2].any(1).numpy()
    top = int(np.flatnonzero(rows[:half]).max(initial=-1)) + 1
    bottom = cells - int(np.flatnonzero(rows[half:]).min(initial=cells - half)) - half
    assert found[layer].touched[2:] == (top, bottom)
    assert found.margin[2:] == (math.ceil(top * stride), math.ceil(bottom * stride))


@pytest.mark.parametrize(
    ("make", "layers", "sizes", "offsets"),
    [
        (  # as published: Araujo et al., 2019, "Computing receptive fields"
            lambda: torchvision.models.resnet18(weights=None),
            ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"],
            [7, 11, 43, 99, 211, 435],
            [0.0] * 6,
        ),
        pytest.param(
            lambda: torchvision.models.vgg16(weights=None).features,
            ["4", "9", "30"],
            [6, 16, 212],
            [0.5, 1.5, 15.5],
            marks=pytest.mark.slow,
        ),
        (lambda: Sequential(Conv(3, 4, 5), Conv(4, 4, (3, 1), 2)), ["0", "1"], [5, 7], [2.0, 3.0]),
        (lambda: Sequential(Conv(3, 4, 3, 3, 1, 2), Conv(4, 4, 3)), ["1"], [11], [4.0]),
    ],
)
def test_receptive_fields_are_those_of_the_literature(make, layers, sizes, offsets):
    torch.manual_seed(0)
    found = ppp.coverage(make().eval(), layers, 64, receptive_fields=True).table()
    assert list(found["receptive_field"]) == sizes
    assert list(found["offset"]) == offsets
