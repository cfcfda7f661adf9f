import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import ppp
from ppp.errors import PPPError

Sequential, Conv = nn.Sequential, nn.Conv2d


def sites(model, size=32):
    return ppp.audit(model.eval(), size)


def refused(model, size=32) -> str:
    with pytest.raises(PPPError) as caught:
        ppp.audit(model, size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Forward(nn.Module):
    """A 3x3 convolution without padding, after a function."""

    def __init__(self, before):
        super().__init__()
        self.before = before
        self.conv = Conv(3, 4, 3)

    def forward(self, x):
        return self.conv(self.before(x))


@pytest.fixture(scope="module")
def resnet18():
    return torchvision.models.resnet18(weights=None).eval()


def test_resnet18_has_17_padded_convolutions_and_a_pool(resnet18):
    found = sites(resnet18, 64)
    convolutions = [s for s in found if s.kind == "convolution"]
    assert len(convolutions) == 17 and len(found) == 18
    assert not [s for s in found if "downsample" in s.module]  # three 1 x 1 convolutions
    assert [(s.module, s.fill) for s in found if s.kind == "max-pool"] == [("maxpool", "-inf")]
    assert all(s.swappable and s.origin == "module" and s.calls == 1 for s in found)
    assert {s.fill for s in convolutions} == {"zeros"}
    assert found.table().shape == (18, 10) and found[0].module == "conv1"
    assert not found.unswappable(pools=True)


def test_stride_2_on_even_sizes_never_uses_the_far_side(resnet18):
    used = {s.module: (s.declared, s.used) for s in sites(resnet18, 64)}
    assert used["conv1"] == ((3, 3, 3, 3), (3, 2, 3, 2))
    assert used["maxpool"] == ((1, 1, 1, 1), (1, 0, 1, 0))
    assert used["layer2.0.conv1"] == ((1, 1, 1, 1), (1, 0, 1, 0))
    odd = sites(Sequential(Conv(3, 4, 3, padding=1, stride=2)), (33, 32))
    assert odd[0].used == (1, 0, 1, 1)


def test_inception_v3_calls_nine_functional_average_pools():
    model = torchvision.models.inception_v3(weights=None, init_weights=False).eval()
    found = sites(model, 299)
    pools = [s for s in found if s.kind == "average-pool"]
    assert len(pools) == 9
    assert {(s.origin, s.used, s.swappable) for s in pools} == {("functional", (1,) * 4, False)}
    assert pools[0].module == "Mixed_5b"
    assert len(found.unswappable(pools=True)) == 9 and not found.unswappable()


@pytest.mark.parametrize(
    ("name", "size", "padded", "bare"),
    [("squeezenet1_0", 224, 0, 3), ("squeezenet1_1", 224, 0, 3), ("googlenet", 224, 9, 4)],
)
def test_ceil_mode_pools_are_found(name, size, padded, bare):
    options = {"init_weights": False} if name == "googlenet" else {}
    found = sites(getattr(torchvision.models, name)(weights=None, **options), size)
    ceil = [s for s in found if s.ceil_mode]
    assert sum(s.kind == "max-pool" for s in ceil) == padded
    assert sum(s.kind == "ceil_mode" for s in ceil) == bare
    assert not any(s.swappable for s in ceil)


def test_ceil_mode_reports_the_overhang_that_is_read():
    for size, used in ((9, (0, 0, 0, 0)), (10, (0, 1, 0, 1)), (11, (0, 0, 0, 0))):
        model = Sequential(Conv(3, 4, 1), nn.MaxPool2d(3, 2, ceil_mode=True))
        assert sites(model, size)[0].used == used


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_convolution_modes_are_one_site_each(mode):
    (site,) = sites(Sequential(Conv(3, 4, 3, padding=(1, 2), padding_mode=mode)))
    assert (site.module, site.kind, site.origin) == ("0", "convolution", "module")
    assert (site.fill, site.used, site.swappable) == (mode, (2, 2, 1, 1), True)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_same_with_an_even_kernel_pads_unevenly(mode):
    same = Conv(3, 3, 4, padding="same", padding_mode=mode)
    found = sites(Sequential(Conv(3, 3, 3, padding=1), same, Conv(3, 3, 3, padding="same"), same))
    assert [(s.module, s.used, s.calls) for s in found] == [
        ("0", (1, 1, 1, 1), 1),
        ("1", (1, 2, 1, 2), 2),
        ("2", (1, 1, 1, 1), 1),
    ]
    assert [s.kind for s in found] == ["convolution", "same", "same"]


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        ({"kernel_size": 3}, (2, 2, 2, 2)),
        ({"kernel_size": 4, "stride": 2, "padding": 1}, (1, 1, 1, 1)),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}, (0, 1, 0, 1)),
    ],
)
def test_transposed_convolutions_are_found_but_not_swappable(options, sides):
    (site,) = sites(Sequential(Conv(3, 4, 1), nn.ConvTranspose2d(4, 4, **options)))
    assert (site.module, site.kind, site.used) == ("1", "transposed", sides)
    assert not site.swappable and "ConvTranspose2d" in site.reason


def test_a_transposed_convolution_without_overlap_pads_nothing():
    assert not sites(Sequential(Conv(3, 4, 1), nn.ConvTranspose2d(4, 4, 2, 2)))


@pytest.mark.parametrize(
    ("function", "kind", "fill", "used"),
    [
        (lambda x: F.pad(x, (1, 2, 3, 0)), "pad", "zeros", (1, 2, 3, 0)),
        (lambda x: F.pad(x, (1, 2, 3, 0), value=2.0), "pad", "constant(2)", (1, 2, 3, 0)),
        (lambda x: F.pad(x, (1, 2)), "pad", "zeros", (1, 2, 0, 0)),
        (lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), "pad", "reflect", (1, 1, 1, 1)),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"), "pad", "circular", (1, 1, 1, 1)),
        (lambda x: F.pad(input=x, pad=(1,) * 4, mode="replicate"), "pad", "replicate", (1,) * 4),
        (lambda x: ppp.pad(x, 1, "symmetric"), "pad", "symmetric", (1, 1, 1, 1)),
        (lambda x: torch.cat([x[:, :, -2:], x, x[:, :, :1]], 2), "pad", "joined", (0, 0, 2, 1)),
        (
            lambda x: F.conv2d(x, torch.ones(3, 3, 3, 3), padding=1),
            "convolution",
            "zeros",
            (1, 1, 1, 1),
        ),
        (lambda x: F.max_pool2d(x, 3, 1, 1), "max-pool", "-inf", (1, 1, 1, 1)),
        (lambda x: F.avg_pool2d(x, 3, 1, 1), "average-pool", "zeros", (1, 1, 1, 1)),
        (
            lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
            "average-pool",
            "zeros, not counted",
            (1, 1, 1, 1),
        ),
    ],
)  # fmt: skip
def test_padding_by_function_calls_is_found_but_not_swappable(function, kind, fill, used):
    (site,) = sites(Forward(function))
    assert (site.module, site.origin, site.kind) == ("", "functional", kind)
    assert (site.fill, site.used) == (fill, used)
    assert not site.swappable and "function call" in site.reason


def test_padding_of_maps_whose_channels_come_last_is_found():
    def last(x):
        return F.pad(x.permute(0, 2, 3, 1), (0, 0, 2, 0, 1, 3)).permute(0, 3, 1, 2)

    (site,) = sites(Forward(last))
    assert (site.kind, site.fill, site.declared) == ("pad", "zeros", (2, 0, 1, 3))
    assert not site.swappable


def test_padding_channels_is_no_padding():
    model = Sequential(Forward(lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:4]))
    assert not sites(model)


def test_joining_channels_is_no_padding():
    assert not sites(Forward(lambda x: torch.cat([x[:, :1], x[:, 1:]], 1)))


def test_every_function_call_is_a_site_of_its_own():
    found = sites(Forward(lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), (1, 1, 1, 1))))
    assert len(found) == 2


def test_unfold_is_found():
    assert sites(Forward(lambda x: F.fold(F.unfold(x, 1, padding=1), (34, 34), 1)))[0].kind == (
        "unfold"
    )


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
    (site,) = sites(Sequential(module, Conv(3, 4, 3)))
    assert (site.module, site.kind, site.origin, site.fill) == ("0", "pad", "module", fill)
    assert site.used == (1, 2, 0, 3) and site.swappable


def test_a_crop_is_no_padding():
    assert not sites(Sequential(Conv(3, 4, 3), nn.ZeroPad2d(-1)))
    assert not sites(Forward(lambda x: F.pad(x, (-1, -1, 0, 0))))


@pytest.mark.parametrize("scheme", [*ppp.SCHEMES, "randn(border)", "constant(0.5)"])
def test_the_audit_of_a_swapped_network_names_the_new_scheme(resnet18, scheme):
    found = sites(ppp.with_padding(resnet18, scheme), 64)
    before = sites(resnet18, 64)
    convolutions = [s for s in found if s.kind == "convolution"]
    name = {"constant": "zeros"}.get(scheme, scheme)  # the constant 0 is shown as what it is
    assert {s.fill for s in convolutions} <= {name, scheme}
    assert [s.module for s in found] == [s.module for s in before]
    assert [s.declared for s in found] == [s.declared for s in before]
    assert not found.unswappable(pools=True)


def test_a_reused_module_counts_its_calls():
    conv = Conv(3, 3, 3, padding=1)
    (site,) = sites(Sequential(conv, nn.ReLU(), conv))
    assert site.calls == 2


class Shortcut(nn.Module):
    """An identity written as an empty Sequential, as common CIFAR networks write it."""

    def __init__(self):
        super().__init__()
        self.conv, self.shortcut = Conv(3, 3, 3, padding=1), Sequential()

    def forward(self, x):
        return self.conv(x) + self.shortcut(x)


def test_an_empty_sequential_passes_its_input_on():
    assert [s.module for s in sites(Shortcut())] == ["conv"]


def test_train_mode_is_refused_and_the_module_named():
    model = torchvision.models.resnet18(weights=None).eval()
    model.layer2[0].bn1.train()
    message = refused(model, 64)
    assert "train mode" in message and "'layer2.0.bn1'" in message


@pytest.mark.parametrize("size", [0, -1, 1.5, (32,), (32, 32, 3), (32, 0)])
def test_malformed_sizes_are_refused(resnet18, size):
    assert repr(size) in refused(resnet18, size)


def test_a_size_at_which_the_network_does_not_run_is_refused_in_one_line():
    model = torchvision.models.alexnet(weights=None).eval()
    assert "does not run on a 16 x 16 input" in refused(model, 16)
    head = Sequential(Conv(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 2)).eval()
    assert "does not run on a 16 x 16 input" in refused(head, 16)


def test_a_network_without_convolutions_is_refused():
    assert "Conv2d" in refused(Sequential(nn.ReflectionPad2d(1)).eval())
    assert "Conv2d" in refused(Sequential(nn.Linear(3, 3)).eval())


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_model_is_left_as_it_was():
    model = torchvision.models.resnet18(weights=None).eval()
    before, modules = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    sites(model, 64)
    with pytest.raises(PPPError):
        ppp.audit(Sequential(model, nn.Linear(3, 3)).eval(), 64)
    assert hooks(model) == 0
    assert [type(m) for m in model.modules()] == modules
    assert all(p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_half_and_double_precision_models_are_audited():
    assert len(sites(Sequential(Conv(3, 4, 3, padding=1)).double())) == 1
    assert len(sites(Sequential(Conv(3, 4, 3, padding=1)).to(torch.bfloat16))) == 1


@pytest.mark.parametrize("around", [torch.inference_mode, torch.enable_grad, torch.no_grad])
def test_what_stands_around_the_call_hides_no_padding(around):
    model = Sequential(
        *[Conv(3, 3, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.ReflectionPad2d(1)],
        *[nn.ConvTranspose2d(3, 3, 4, 2, 1), nn.AvgPool2d(3, 1, 1), nn.CircularPad2d(1)],
    ).eval()
    with around():
        sites, margin = ppp.audit(model, 32), ppp.coverage(model, ["5"], 32).margin
    assert [site.kind for site in sites] == [
        *("convolution", "max-pool", "pad", "transposed", "average-pool", "pad")
    ]
    assert margin == ppp.coverage(model, ["5"], 32).margin
