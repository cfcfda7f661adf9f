import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from checks import refused
from torch import nn
from toys import Function, sequential, unchanged

import ppp
from ppp.inventory import input_channels

Conv = nn.Conv2d
ONE = (1, 1, 1, 1)


def sites(model, size=32):
    return ppp.audit(model.eval(), size)


def before(function):
    """Return a 3 x 3 convolution without padding, after a function."""
    return sequential(function, Conv(3, 4, 3))


def test_resnet18_has_17_padded_convolutions_and_a_pool(resnet18):
    found = sites(resnet18, 64)
    convolutions = [s for s in found if s.kind == "convolution"]
    assert len(convolutions) == 17 and len(found) == 18
    assert not [s for s in found if "downsample" in s.module]  # three 1 x 1 convolutions
    assert [(s.module, s.fill) for s in found if s.kind == "max-pool"] == [("maxpool", "-inf")]
    assert all(s.swappable and s.origin == "module" and s.calls == 1 for s in found)
    assert {s.fill for s in convolutions} == {"zeros"}
    assert found.table().shape == (18, 10) and not found.unswappable(pools=True)
    assert repr(found) == "Audit(18 padding sites: 17 convolution, 1 max-pool)"


def test_stride_2_on_even_sizes_never_uses_the_far_side(resnet18):
    used = {s.module: (s.declared, s.used) for s in sites(resnet18, 64)}
    assert used["conv1"] == ((3, 3, 3, 3), (3, 2, 3, 2))
    assert used["maxpool"] == used["layer2.0.conv1"] == (ONE, (1, 0, 1, 0))
    odd = sites(sequential(Conv(3, 4, 3, padding=1, stride=2)), (33, 32))
    assert odd[0].used == (1, 0, 1, 1)


@pytest.mark.parametrize(
    ("name", "padded", "bare", "average"),
    [("squeezenet1_0", 0, 3, 0), ("googlenet", 9, 4, 0), ("inception_v3", 0, 0, 9)],
)
def test_ceil_mode_and_functional_pools_of_large_networks(name, padded, bare, average):
    options = {} if name == "squeezenet1_0" else {"init_weights": False}
    found = sites(getattr(torchvision.models, name)(weights=None, **options), 224)
    ceil = [s for s in found if s.ceil_mode]
    assert sum(s.kind == "max-pool" for s in ceil) == padded
    assert sum(s.kind == "ceil_mode" for s in ceil) == bare
    pools = [s for s in found if s.kind == "average-pool"]
    assert {(s.origin, s.used) for s in pools} == {("functional", ONE)} or not average
    assert len(pools) == average and not any(s.swappable for s in pools + ceil)
    assert len(found.unswappable(pools=True)) == padded + bare + average
    assert not found.unswappable()


def test_ceil_mode_reports_the_overhang_that_is_read():
    for size, used in ((9, (0, 0, 0, 0)), (10, (0, 1, 0, 1)), (11, (0, 0, 0, 0))):
        model = sequential(Conv(3, 4, 1), nn.MaxPool2d(3, 2, ceil_mode=True))
        assert sites(model, size)[0].used == used


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_convolution_modes_are_one_site_each(mode):
    (site,) = sites(sequential(Conv(3, 4, 3, padding=(1, 2), padding_mode=mode)))
    assert (site.module, site.kind, site.origin) == ("0", "convolution", "module")
    assert (site.fill, site.used, site.swappable) == (mode, (2, 2, 1, 1), True)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_same_with_an_even_kernel_pads_unevenly(mode):
    same = Conv(3, 3, 4, padding="same", padding_mode=mode)
    found = sites(sequential(Conv(3, 3, 3, padding=1), same, Conv(3, 3, 3, padding="same"), same))
    assert [(s.module, s.kind, s.used, s.calls) for s in found] == [
        ("0", "convolution", ONE, 1),
        ("1", "same", (1, 2, 1, 2), 2),
        ("2", "same", ONE, 1),
    ]


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ({"kernel_size": 3}, (2, 2, 2, 2)),
        ({"kernel_size": 4, "stride": 2, "padding": 1}, ONE),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}, (0, 1, 0, 1)),
    ],
)
def test_transposed_convolutions_are_found_but_not_swappable(options, sides):
    (site,) = sites(sequential(Conv(3, 4, 1), nn.ConvTranspose2d(4, 4, **options)))
    assert (site.module, site.kind, site.used) == ("1", "transposed", sides)
    assert not site.swappable and "ConvTranspose2d" in site.reason


def channels_last(x):
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, 2, 0, 1, 3)).permute(0, 3, 1, 2)


def average(x):
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


@pytest.mark.parametrize(
    ("function", "kind", "fill", "used"),
    [
        (lambda x: F.pad(x, (1, 2, 3, 0)), "pad", "zeros", (1, 2, 3, 0)),
        (lambda x: F.pad(x, (1, 2, 3, 0), value=2.0), "pad", "constant(2)", (1, 2, 3, 0)),
        (lambda x: F.pad(x, (1, 2)), "pad", "zeros", (1, 2, 0, 0)),
        (lambda x: F.pad(x, ONE, "reflect"), "pad", "reflect", ONE),
        (lambda x: F.pad(x, ONE, mode="circular"), "pad", "circular", ONE),
        (lambda x: F.pad(input=x, pad=ONE, mode="replicate"), "pad", "replicate", ONE),
        (channels_last, "pad", "zeros", (2, 0, 1, 3)),
        (lambda x: ppp.pad(x, 1, "symmetric"), "pad", "symmetric", ONE),
        (lambda x: torch.cat([x[:, :, -2:], x, x[:, :, :1]], 2), "pad", "joined", (0, 0, 2, 1)),
        (lambda x: F.conv2d(x, torch.ones(3, 3, 3, 3), padding=1), "convolution", "zeros", ONE),
        (lambda x: F.max_pool2d(x, 3, 1, 1), "max-pool", "-inf", ONE),
        (lambda x: F.avg_pool2d(x, 3, 1, 1), "average-pool", "zeros", ONE),
        (average, "average-pool", "zeros, not counted", ONE),
        (lambda x: F.fold(F.unfold(x, 1, padding=1), (34, 34), 1), "unfold", "zeros", ONE),
    ],
)  # fmt: skip
def test_padding_by_function_calls_is_found(function, kind, fill, used):
    (site,) = sites(before(function))
    assert (site.module, site.origin, site.kind) == ("0", "functional", kind)
    assert (site.fill, site.used) == (fill, used)
    assert site.swappable == (kind in ("pad", "convolution") and fill != "joined")
    assert site.swappable or any(
        words in site.reason for words in ("function call", "joined by torch.cat", "unfold takes")
    )


def test_every_function_call_is_a_site_of_its_own_and_a_module_counts_its_calls():
    assert len(sites(before(lambda x: F.pad(F.pad(x, ONE), ONE)))) == 2
    conv = Conv(3, 3, 3, padding=1)
    (site,) = sites(sequential(conv, nn.ReLU(), conv))
    assert site.calls == 2


@pytest.mark.parametrize(
    "model",
    [
        before(lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:4]),
        before(lambda x: torch.cat([x[:, :1], x[:, 1:]], 1)),
        before(lambda x: F.pad(x, (-1, -1, 0, 0))),
        sequential(Conv(3, 4, 3), nn.ZeroPad2d(-1)),
        sequential(Conv(3, 4, 1), nn.ConvTranspose2d(4, 4, 2, 2)),
        sequential(nn.Sequential(), Conv(3, 4, 1)),
    ],
)
def test_channels_crops_and_kernels_without_overlap_are_no_padding(model):
    assert not sites(model)


@pytest.mark.parametrize(
    ("module", "fill"),
    [
        (nn.ZeroPad2d((1, 2, 0, 3)), "zeros"),
        (nn.ConstantPad2d((1, 2, 0, 3), 0.5), "constant(0.5)"),
        (nn.ReflectionPad2d((1, 2, 0, 3)), "reflect"),
        (nn.ReplicationPad2d((1, 2, 0, 3)), "replicate"),
        (nn.CircularPad2d((1, 2, 0, 3)), "circular"),
    ],
)
def test_padding_modules_are_found(module, fill):
    (site,) = sites(sequential(module, Conv(3, 4, 3)))
    assert (site.module, site.kind, site.origin, site.fill) == ("0", "pad", "module", fill)
    assert site.used == (1, 2, 0, 3) and site.swappable


@pytest.mark.parametrize("scheme", [*ppp.SCHEMES, "randn(border)", "constant(0.5)"])
def test_the_audit_of_a_swapped_network_names_the_new_scheme(model, scheme):
    found, plain = sites(ppp.with_padding(model, scheme)), sites(model)
    name = {"constant": "zeros"}.get(scheme, scheme)  # the constant 0 is shown as what it is
    assert {s.fill for s in found if s.kind == "convolution"} <= {name, scheme}
    assert [(s.module, s.declared) for s in found] == [(s.module, s.declared) for s in plain]
    assert not found.unswappable(pools=True)


@pytest.mark.parametrize(
    ("model", "size", "named"),
    [
        *[(sequential(Conv(3, 4, 3)), size, repr(size)) for size in (0, -1, 1.5, (32,), (32, 0))],
        (sequential(Conv(3, 4, 3, stride=8), Conv(4, 4, 3)), 16, "16 x 16"),
        (sequential(Conv(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)), 16, "16 x 16"),
        (sequential(nn.ReflectionPad2d(1)), 32, "Conv2d"),
    ],
)
def test_what_cannot_be_audited_is_refused(model, size, named):
    assert named in refused(ppp.audit, model, size)


def test_train_mode_is_refused_and_the_module_named(resnet18):
    half = copy.deepcopy(resnet18)
    half.layer2[0].bn1.train()
    assert "'layer2.0.bn1'" in refused(ppp.audit, half, 64)


def test_the_model_is_left_as_it_was(resnet18):
    state, modules = copy.deepcopy(resnet18.state_dict()), [type(m) for m in resnet18.modules()]
    sites(resnet18, 64)
    refused(ppp.audit, sequential(resnet18, nn.Linear(3, 3)), 64)
    assert unchanged(resnet18, state) and [type(m) for m in resnet18.modules()] == modules


def test_half_and_double_precision_models_are_audited():
    for dtype in (torch.float64, torch.bfloat16):
        assert len(sites(sequential(Conv(3, 4, 3, padding=1)).to(dtype))) == 1


@pytest.mark.parametrize("around", [torch.inference_mode, torch.enable_grad])
def test_what_stands_around_the_call_hides_no_padding(around):
    model = sequential(
        *[Conv(3, 3, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.ReflectionPad2d(1)],
        *[nn.ConvTranspose2d(3, 3, 4, 2, 1), nn.AvgPool2d(3, 1, 1), Function(lambda x: x)],
    )
    with around():
        inside, margin = ppp.audit(model, 32), ppp.coverage(model, ["5"], 32).margin
    assert inside == ppp.audit(model, 32) and len(inside) == 5
    assert margin == ppp.coverage(model, ["5"], 32).margin


class HeadFirst(nn.Module):
    """The first convolution that is registered runs last."""

    def __init__(self):
        super().__init__()
        self.head, self.stem = Conv(16, 4, 3, padding=1), Conv(3, 16, 3, padding=1)

    def forward(self, x):
        return self.head(self.stem(x))


class Scaled(nn.Module):
    """A convolution of its own class."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, channels, 3, 3))

    def forward(self, x):
        return F.conv2d(x, 0.1 * self.weight, padding=1)


@pytest.mark.parametrize(
    ("model", "channels", "padded"),
    [
        (HeadFirst(), 3, ["stem", "head"]),
        (nn.Sequential(Scaled(5), nn.LeakyReLU(), Scaled(4)), 5, ["0", "2"]),
        (nn.Sequential(Conv(1, 8, 3, padding=1), Conv(8, 8, 3, padding=1)), 1, ["0", "1"]),
        (nn.Sequential(nn.PixelUnshuffle(4), Conv(48, 8, 3, padding=1)), 3, ["1"]),
    ],
)
def test_the_channels_of_a_picture_are_those_that_the_first_convolution_takes(
    model, channels, padded
):
    assert input_channels(model.eval(), (32, 32)) == channels
    assert [site.module for site in ppp.audit(model, 32)] == padded
