import copy
import io
import pickle
import types

import checks
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from toys import noise, seeded, windows

import ppp
from ppp.errors import PaddingError, PPPError, SwapError
from ppp.swapping import Pad2d, PaddedConv2d

Sequential, Conv = nn.Sequential, nn.Conv2d
SCHEMES = [*ppp.SCHEMES, "constant(0.5)", "randn(border)"]
DETERMINISTIC = [s for s in SCHEMES if not s.startswith(("randn", "nan"))]


def small(mode: str = "zeros") -> nn.Module:
    torch.manual_seed(0)
    return Sequential(
        Conv(3, 8, 3, padding=1, padding_mode=mode),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Conv(8, 4, 5, padding=(2, 1), stride=2, padding_mode=mode),
    ).eval()


def refused(*arguments, error=SwapError, **options) -> str:
    return checks.refused(ppp.with_padding, *arguments, error=error, **options)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 96),
        ("squeezenet1_0", 64),
        ("mobilenet_v2", 64),
        *(
            pytest.param(n, 64, marks=pytest.mark.nightly)
            for n in ("resnet50", "vgg16", "densenet121")
        ),
    ],
)
def test_the_own_scheme_is_bit_equal_and_a_round_trip_restores_it(name, size):
    torch.manual_seed(0)
    features = getattr(torchvision.models, name)(weights=None).eval()
    features = getattr(features, "features", features)  # VGG's classifier is large and unpadded
    x = noise(1, 3, size, size)
    with torch.inference_mode():
        expected = features(x)
        assert torch.equal(ppp.with_padding(features, "zeros")(x), expected)
        reflect = ppp.with_padding(features, "symmetric")
        assert not torch.equal(reflect(x), expected)
        back = ppp.with_padding(reflect, "zeros")
        assert torch.equal(back(x), expected)
        assert torch.equal(features(x), expected)
    assert [type(m) for m in back.modules()] == [type(m) for m in features.modules()]
    assert list(reflect.state_dict()) == list(features.state_dict())


VARIANTS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "uneven kernel": {"kernel_size": (5, 3), "padding": (2, 1)},
    "one axis": {"kernel_size": (1, 3), "padding": (0, 1)},
    "stride": {"kernel_size": 3, "padding": 1, "stride": 2},
    "dilation": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False},
    "same": {"kernel_size": 3, "padding": "same"},
    "same, even": {"kernel_size": 4, "padding": "same"},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "circular, same, dilated": {
        "kernel_size": (4, 3),
        "padding": "same",
        "dilation": (1, 2),
        "padding_mode": "circular",
    },
    "valid": {"kernel_size": 3, "padding": "valid"},
}
SIDES = {
    "uneven kernel": (1, 1, 2, 2),
    "one axis": (1, 1, 0, 0),
    "dilation": (2, 2, 2, 2),
    "same, even": (1, 2, 1, 2),
    "circular, same, dilated": (2, 2, 1, 2),
    "valid": (0, 0, 0, 0),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_swapped_convolution_is_a_convolution_of_the_padded_map(variant, scheme):
    torch.manual_seed(0)
    conv = Conv(4, 6, **VARIANTS[variant])
    x = noise(2, 4, 9, 8)
    got = ppp.with_padding(conv, scheme, generator=seeded(5))(x)
    padded = ppp.pad(x, SIDES.get(variant, (1, 1, 1, 1)), scheme, generator=seeded(5))
    expected = F.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
    torch.testing.assert_close(got, expected, equal_nan=True)


def test_parameters_are_shared_and_buffers_are_not():
    model = small()
    swapped = ppp.with_padding(model, "reflect")
    own, copied = dict(model.named_parameters()), dict(swapped.named_parameters())
    assert list(own) == list(copied)
    assert all(own[name] is copied[name] for name in own)
    buffers = dict(swapped.named_buffers())
    for name, buffer in model.named_buffers():
        assert buffer is not buffers[name] and buffer.data_ptr() != buffers[name].data_ptr()


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "nan"])
def test_the_copy_trains_and_the_original_s_statistics_stay(scheme):
    model = small()
    state, types = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    x = noise(4, 3, 16, 16)
    expected = model(x)
    swapped = ppp.with_padding(model, scheme, generator=seeded()).train()
    loss = swapped(x).square().mean()
    loss.backward()
    gradients = [p.grad for p in swapped.parameters()]
    assert all(g is not None and g.isfinite().all() and (g != 0).any() for g in gradients)
    assert not torch.equal(swapped[1].running_mean, model[1].running_mean)
    after = model.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert not model.training and not model[0].training
    assert [type(m) for m in model.modules()] == types
    assert torch.equal(model(x), expected)
    torch.optim.SGD(swapped.parameters(), lr=0.1).step()  # "training either trains both"
    assert not torch.equal(model[0].weight, state["0.weight"])


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(training):
    swapped = ppp.with_padding(small().train(training), "reflect")
    assert {m.training for m in swapped.modules()} == {training}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("how", ["pickle", "torch", "deepcopy"])
def test_a_swapped_network_survives_a_round_trip_with_its_generator(scheme, how):
    swapped = ppp.with_padding(small(), scheme, generator=seeded(3))
    x = noise(1, 3, 12, 12)
    swapped(x)  # the generator has moved on
    if how == "pickle":
        again = pickle.loads(pickle.dumps(swapped))
    elif how == "deepcopy":
        again = copy.deepcopy(swapped)
    else:
        file = io.BytesIO()
        torch.save(swapped, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    first, second = swapped(x), again(x)
    assert torch.equal(first.nan_to_num(9.0), second.nan_to_num(9.0))
    assert again[0].border.generator is again[3].border.generator if scheme != "zeros" else True


@pytest.mark.parametrize("scheme", DETERMINISTIC)
def test_channels_last_gives_the_same_features(scheme):
    swapped = ppp.with_padding(small(), scheme)
    x = noise(2, 3, 16, 16)
    expected = swapped(x)
    got = swapped.to(memory_format=torch.channels_last)(
        x.contiguous(memory_format=torch.channels_last)
    )
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_the_own_mode_is_left_exactly_as_it_is(mode):
    model = small(mode)
    swapped = ppp.with_padding(model, mode)
    assert [type(m) for m in swapped.modules()] == [type(m) for m in model.modules()]
    x = noise(1, 3, 12, 12)
    assert torch.equal(swapped(x), model(x))


@pytest.mark.parametrize("first", SCHEMES)
def test_the_last_swap_counts(first):
    model, x = small(), noise(1, 3, 12, 12)
    twice = ppp.with_padding(ppp.with_padding(model, first), "reflect")
    assert torch.equal(twice(x), ppp.with_padding(model, "reflect")(x))
    assert torch.equal(ppp.with_padding(twice, "zeros")(x), model(x))
    assert twice[0].weight is model[0].weight


def test_randn_can_be_swapped_for_randn_with_another_generator():
    model, x = small(), noise(1, 3, 12, 12)
    first = ppp.with_padding(model, "randn", generator=seeded(1))
    second = ppp.with_padding(first, "randn", generator=seeded(2))
    expected = ppp.with_padding(model, "randn", generator=seeded(2))(x)
    assert torch.equal(second(x), expected)
    assert not torch.equal(second(x), expected)  # fresh at every call


@pytest.mark.parametrize(
    "module",
    [
        nn.ZeroPad2d((1, 2, 0, 3)),
        nn.ConstantPad2d((1, 2, 0, 3), 0.5),
        nn.ReflectionPad2d((1, 2, 0, 3)),
        nn.ReplicationPad2d((1, 2, 0, 3)),
        nn.CircularPad2d((1, 2, 0, 3)),
    ],
)
def test_padding_modules_are_swapped(module):
    model, x = Sequential(module, Conv(3, 4, 3)), noise(1, 3, 8, 8)
    for scheme in DETERMINISTIC:
        got = ppp.with_padding(model, scheme)(x)
        torch.testing.assert_close(got, model[1](ppp.pad(x, (1, 2, 0, 3), scheme)))
    root = ppp.with_padding(module, "symmetric")
    assert isinstance(root, Pad2d) and torch.equal(root(x), ppp.pad(x, (1, 2, 0, 3), "symmetric"))


def test_a_module_registered_under_two_names_is_swapped_under_both():
    border, conv = nn.ReflectionPad2d(1), Conv(3, 3, 3)
    model, x = Sequential(border, conv, border, conv), noise(1, 3, 8, 8)
    got = ppp.with_padding(model, "zeros")(x)
    torch.testing.assert_close(got, conv(F.pad(conv(F.pad(x, (1,) * 4)), (1,) * 4)))
    pool = nn.MaxPool2d(3, 2, 1)
    model = Sequential(pool, Conv(3, 3, 1), pool)
    got = ppp.with_padding(model, "replicate", pools="swap")(x)
    bare = nn.MaxPool2d(3, 2)
    middle = model[1](bare(ppp.pad(x, 1, "replicate")))
    torch.testing.assert_close(got, bare(ppp.pad(middle, 1, "replicate")))
    assert pool.padding == 1


class Holder(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv, self.pool = Conv(3, 4, 3, padding=1), pool

    def forward(self, x):
        return self.pool(self.conv(x))


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2, (1, 0)), nn.AvgPool2d(3, 2, (1, 0)), nn.MaxPool2d(3, 2, 1)]
)
def test_pools_keep_their_padding_or_get_the_scheme(pool):
    model, x = Holder(pool).eval(), noise(1, 3, 9, 9)
    features = F.conv2d(ppp.pad(x, 1, "reflect"), model.conv.weight, model.conv.bias)
    torch.testing.assert_close(ppp.with_padding(model, "reflect")(x), pool(features))
    swapped = ppp.with_padding(model, "reflect", pools="swap")
    rows, columns = pool.padding if isinstance(pool.padding, tuple) else (1, 1)
    bare = copy.deepcopy(pool)
    bare.padding = 0
    expected = bare(ppp.pad(features, (columns, columns, rows, rows), "reflect"))
    torch.testing.assert_close(swapped(x), expected)
    again = ppp.with_padding(swapped, "replicate", pools="swap")(x)
    features = F.conv2d(ppp.pad(x, 1, "replicate"), model.conv.weight, model.conv.bias)
    expected = bare(ppp.pad(features, (columns, columns, rows, rows), "replicate"))
    torch.testing.assert_close(again, expected)
    kept = ppp.with_padding(swapped, "replicate")(x)  # conv replicate, pool still reflect
    expected = bare(ppp.pad(features, (columns, columns, rows, rows), "reflect"))
    torch.testing.assert_close(kept, expected)
    assert pool.padding == bare.padding or pool.padding != 0


def test_pools_without_padding_are_left_alone():
    swapped = ppp.with_padding(Holder(nn.MaxPool2d(2)), "reflect", pools="swap")
    assert type(swapped.pool) is nn.MaxPool2d


# --- refusals ----------------------------------------------------------------------------


class Renamed(Conv):
    """Overrides nothing that computes."""


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d"),
        (nn.ConvTranspose2d(4, 4, 4, 2, 1), "ConvTranspose2d"),
        (nn.ConvTranspose2d(4, 4, 2, 2, dilation=2), "ConvTranspose2d"),
        (nn.Conv3d(4, 4, 3, padding=1), "Conv3d"),
    ],
)
def test_what_cannot_be_swapped_is_refused_by_name(module, kind):
    message = refused(Sequential(Conv(3, 4, 3, padding=1), Sequential(module)), "reflect")
    assert "'1.0'" in message and kind in message
    assert "'the model'" in refused(module, "reflect")


def test_many_refusals_are_one_line():
    message = refused(Sequential(*[nn.ConvTranspose2d(4, 4, 3) for _ in range(9)]), "reflect")
    assert "'2'" in message and "'3'" not in message and "6 more" in message


def test_what_pads_nothing_is_no_obstacle():
    unpadded = nn.utils.parametrizations.weight_norm(Conv(4, 4, 1))
    model = Sequential(Conv(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2), unpadded)
    assert ppp.with_padding(model, "reflect")(noise(1, 3, 8, 8)).shape == (1, 4, 16, 16)


class Standardised(Conv):
    """As of BiT and NFNet: a convolution with another weight than the one it holds."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride, self.padding)


class OwnConvForward(Conv):
    def _conv_forward(self, x, weight, bias):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, bias)


class SameAsTensorFlow(Conv):
    def forward(self, x):
        sides = [more for size in (x.shape[3], x.shape[2]) for more in (size % 2, 1)]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride)


class Blurred(nn.Module):
    """As of anti-aliased networks: a fixed kernel behind a padding by a call."""

    def __init__(self):
        super().__init__()
        self.conv = Conv(3, 4, 1)
        self.register_buffer("kernel", torch.ones(4, 1, 3, 3) / 9)

    def forward(self, x):
        x = F.pad(self.conv(x), (1, 1, 1, 1), mode="reflect")
        return F.conv2d(x, self.kernel, stride=2, groups=4)


class BySides(nn.Module):
    """Each call in another way."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x):
        x = F.conv2d(input=x, weight=self.weight, padding="same")
        x = F.conv2d(x, self.weight, None, 1, (1, 0), 1, 1)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 0, 2)).permute(0, 3, 1, 2)
        return F.pad(F.pad(x, (-1, 0)), pad=(1, 0, 0, 2), value=3.0)


def weight_norm() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(Conv(3, 4, 3, padding=1))


def by_hand(model: nn.Module, x: torch.Tensor, scheme: str) -> torch.Tensor:
    """What each of them computes, every border made by a scheme."""

    def border(maps, *amount):
        return ppp.pad(maps, amount if len(amount) == 4 else amount[0], scheme)

    match model:
        case Standardised():
            return F.conv2d(border(x, 1), model.weight - model.weight.mean(), model.bias)
        case OwnConvForward():
            return F.conv2d(border(x, 1), model.weight, model.bias)
        case SameAsTensorFlow():
            height, width = x.shape[2:]
            return F.conv2d(border(x, width % 2, 1, height % 2, 1), model.weight, model.bias, 2)
        case Blurred():
            return F.conv2d(border(model.conv(x), 1), model.kernel, stride=2, groups=4)
        case BySides():
            x = F.conv2d(border(x, 1), model.weight)
            x = border(F.conv2d(border(x, 0, 0, 1, 1), model.weight), 1, 1, 0, 2)
            return border(x[..., 1:], 1, 0, 0, 2)
    return F.conv2d(border(x, 1), model.weight, model.bias)


OWN_WAYS = [
    lambda: Standardised(3, 4, 3, padding=1), lambda: OwnConvForward(3, 4, 3),
    lambda: SameAsTensorFlow(3, 4, 3, 2), Blurred, BySides, weight_norm,
    lambda: Renamed(3, 4, 3, padding=1),
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["reflect", "circular", "constant(0.5)", "circular|zeros"])
@pytest.mark.parametrize("make", OWN_WAYS)
def test_what_convolves_or_pads_in_its_own_way_is_swapped_where_it_runs(make, scheme):
    torch.manual_seed(0)
    model, x = make().eval(), noise(2, 3, 8, 7)
    before, inner = model(x), Sequential(model).eval()
    swapped = ppp.with_padding(inner, scheme)
    expected = by_hand(model, x, scheme)
    torch.testing.assert_close(swapped(x), expected)
    for again in (copy.deepcopy(swapped), ppp.with_padding(swapped, scheme)):
        torch.testing.assert_close(again(x), expected)
    assert torch.equal(model(x), before)
    assert {site.fill for site in ppp.audit(swapped, 9)} == {scheme}
    other = ppp.with_padding(swapped, "replicate")
    torch.testing.assert_close(other(x), by_hand(model, x, "replicate"))


@pytest.mark.parametrize("make", OWN_WAYS[:5])
def test_it_is_measured_with_true_values_at_every_call(make):
    torch.manual_seed(0)
    model = Sequential(make(), nn.Identity()).eval()
    reach = ppp.coverage(model, ["1"], 16)
    found = ppp.measure(model, windows(reach, 16), ["1"], ["own", "reflect"], coverage=reach)
    for scheme in ("own", "reflect"):
        result = found[scheme, "1"]
        assert result.completeness.shown and result.null_test.passed
        differences = []
        for picture in windows(reach, 16):
            for top, left in zip(picture.tops, picture.lefts):
                x = picture.pixels[None, :, top : top + 16, left : left + 16]
                got = model(x) if scheme == "own" else by_hand(model[0], x, scheme)
                true = ppp.optimal(model, picture.pixels[:, :160, :160], [top], [left], reach)
                differences.append((got - true.maps["1"])[0].detach())
        expected = torch.stack(differences).mean(0)
        torch.testing.assert_close(torch.from_numpy(result.pattern), expected, atol=1e-5, rtol=1e-4)
        assert expected.abs().max() > 0.01


def test_a_partial_convolution_weighs_what_it_sees():
    conv = Conv(1, 1, 3, padding=1)
    nn.init.constant_(conv.weight, 1.0)
    nn.init.constant_(conv.bias, 0.5)
    ones = torch.ones(1, 1, 4, 5)
    assert torch.equal(ppp.with_padding(conv, "partial")(ones), 9.5 + torch.zeros(1, 1, 4, 5))
    x = noise(1, 1, 4, 5)
    corner = 9 / 4 * x[0, 0, :2, :2].sum() + 0.5  # 4 of the kernel's 9 cells lie on the map
    torch.testing.assert_close(ppp.with_padding(conv, "partial")(x)[0, 0, 0, 0], corner)
    model = Sequential(Conv(3, 4, 3, padding=1), Standardised(4, 4, 3, padding=1)).eval()
    reach = ppp.coverage(model, ["1"], 16)
    result = ppp.measure(model, windows(reach, 16), ["1"], "partial", coverage=reach)["1"]
    assert result.completeness.shown and result.null_test.passed
    padded = Sequential(nn.ZeroPad2d(1), Conv(3, 4, 3))
    assert "no convolution to re-weight" in refused(padded, "partial")


class Learned(nn.Module):
    """Each channel is padded with a value of its own, which is learned."""

    def __init__(self, channels):
        super().__init__()
        self.value = nn.Parameter(torch.arange(float(channels)))

    def forward(self, x, sides):
        border = 1 - F.pad(torch.ones_like(x), sides)
        return F.pad(x, sides) + border * self.value[:, None, None]


def test_a_function_of_maps_is_a_scheme_and_may_learn():
    conv, learned, x = Conv(3, 4, 3, padding=1), Learned(3), noise(2, 3, 6, 6)
    swapped = ppp.with_padding(Sequential(conv), learned)
    padded = F.pad(x, (1,) * 4)
    padded[:, 1, [0, -1]], padded[:, 2, [0, -1]] = 1.0, 2.0
    padded[:, 1, :, [0, -1]], padded[:, 2, :, [0, -1]] = 1.0, 2.0
    torch.testing.assert_close(swapped(x), F.conv2d(padded, conv.weight, conv.bias))
    copy.deepcopy(swapped)(x).sum().backward()
    assert learned.value.grad.abs().sum() > 0
    reach = ppp.coverage(Sequential(conv).eval(), ["0"], 16)
    found = ppp.measure(Sequential(conv).eval(), windows(reach, 16), ["0"], learned, coverage=reach)
    assert found["Learned", "0"].completeness.shown
    with pytest.raises(PaddingError, match="expected maps of shape"):
        ppp.pad(x, 1, lambda maps, sides: maps)


def test_a_map_too_small_for_reflect_is_refused_with_the_layer_s_name():
    model = Sequential(Conv(3, 4, 3, padding=1, stride=4), Sequential(Conv(4, 4, 5, padding=2)))
    swapped = ppp.with_padding(model, "reflect")
    with pytest.raises(PaddingError) as caught:
        swapped(noise(1, 3, 8, 8))
    assert "layer '1.0'" in str(caught.value) and "at most 1" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(PaddingError, match=r"layer '1'.*too large for circular"):
        ppp.with_padding(Sequential(Conv(3, 4, 1), nn.ZeroPad2d(9)), "circular")(noise(1, 3, 8, 8))


def test_bad_arguments_are_refused():
    assert "did you mean 'reflect'?" in refused(small(), "refelct", error=PaddingError)
    assert "did you mean 'swap'?" in refused(small(), "reflect", pools="swapp", error=PPPError)
    ceil = Holder(nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    assert "'pool'" in refused(ceil, "reflect", pools="swap")
    assert isinstance(ppp.with_padding(ceil, "reflect").conv, PaddedConv2d)


# --- what was changed after the layer was made, or is added by its class ----------------------


@pytest.mark.parametrize(
    ("made", "padding", "dilation"), [(1, 2, 2), (0, 1, 1), (1, 0, 1), (1, "same", 2)]
)
@pytest.mark.parametrize("scheme", ["reflect", "zeros"])
def test_padding_and_dilation_set_later_count(made, padding, dilation, scheme):
    """As dilated ResNets do; PyTorch pads zeros by them, whatever the layer was made with."""
    model, x = Sequential(Conv(3, 4, 3, padding=made)).eval(), noise(1, 3, 16, 16)
    conv = model[0]
    conv.padding = padding if padding == "same" else (padding, padding)
    conv.dilation = (dilation, dilation)
    sides = 2 if padding == "same" else padding
    assert [site.declared for site in ppp.audit(model, 16)] == [(sides,) * 4] * (sides > 0)
    expected = F.conv2d(ppp.pad(x, sides, scheme), conv.weight, conv.bias, dilation=dilation)
    torch.testing.assert_close(ppp.with_padding(model, scheme)(x), expected)


def test_another_mode_pads_by_what_the_layer_was_made_with():
    """So does PyTorch; zeros take its place with the same amount."""
    model, x = Sequential(Conv(3, 4, 3, padding=1, padding_mode="reflect")), noise(1, 3, 9, 9)
    model[0].padding = (3, 3)
    assert model(x).shape == (1, 4, 9, 9)
    swapped = ppp.with_padding(model, "zeros")
    torch.testing.assert_close(swapped(x), F.conv2d(x, model[0].weight, model[0].bias, padding=1))


class Doubled(Conv):
    def __call__(self, x):
        return 2 * super().__call__(x)


class AsksForItsClass(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = Renamed(3, 4, 3, padding=1)

    def forward(self, x):
        return 2 * self.conv(x) if isinstance(self.conv, Renamed) else self.conv(x)


@pytest.mark.parametrize("model", [Sequential(Doubled(3, 4, 3, padding=1)), AsksForItsClass()])
def test_what_a_subclass_adds_is_kept(model):
    conv, x = next(m for m in model.modules() if isinstance(m, Conv)), noise(1, 3, 8, 8)
    expected = 2 * F.conv2d(ppp.pad(x, 1, "symmetric"), conv.weight, conv.bias)
    swapped = ppp.with_padding(model, "symmetric")
    for network in (swapped, copy.deepcopy(swapped), pickle.loads(pickle.dumps(swapped))):
        torch.testing.assert_close(network(x), expected)
    back = ppp.with_padding(swapped, "zeros")
    assert torch.equal(back(x), model(x))
    assert [type(m) for m in back.modules()] == [type(m) for m in model.modules()]


class Half(nn.ReflectionPad2d):
    def forward(self, x):
        return 0.5 * super().forward(x)


class OwnPool(nn.MaxPool2d):
    def forward(self, x):
        return -super().forward(-x)


def replaced(by_closure: bool) -> nn.Module:
    model = small()
    original = model[0].forward
    if by_closure:
        model[0].forward = lambda x: original(x)
    else:
        model[0].forward = types.MethodType(lambda self, x: original(x), model[0])
    return model


def unready() -> nn.Module:
    return Sequential(nn.LazyConv2d(4, 3, padding=1))


def exported() -> nn.Module:
    return torch.export.export(small(), (noise(1, 3, 12, 12),)).module()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.jit.script(small()), "compiled by torch.jit"),
        (lambda: torch.jit.trace(small(), noise(1, 3, 12, 12)), "compiled by torch.jit"),
        (lambda: Sequential(torch.jit.script(small())), "'0': RecursiveScriptModule"),
        (exported, "GraphModule is a graph that convolves or pads by operators"),
        (unready, "'0': LazyConv2d has no parameters yet; run the network once first"),
        (
            lambda: Sequential(nn.utils.weight_norm(Conv(3, 4, 3, padding=1))),
            "Sequential cannot be copied: Only Tensors created explicitly",
        ),
    ],
)
def test_what_a_copy_would_not_follow_is_refused(make, words):
    assert words in refused(make(), "reflect")


@pytest.mark.parametrize("by_closure", [True, False])
def test_a_replaced_forward_is_followed(by_closure):
    x = noise(1, 3, 12, 12)
    expected = ppp.with_padding(small(), "reflect")(x)
    torch.testing.assert_close(ppp.with_padding(replaced(by_closure), "reflect")(x), expected)


def test_a_padding_module_of_its_own_kind_is_swapped():
    model, x = Sequential(Half(1), Conv(3, 4, 3)), noise(1, 3, 8, 8)
    expected = model[1](0.5 * ppp.pad(x, 1, "circular"))
    torch.testing.assert_close(ppp.with_padding(model, "circular")(x), expected)


def test_a_traced_graph_of_modules_is_swapped():
    model, x = torch.fx.symbolic_trace(small()), noise(1, 3, 12, 12)
    expected = ppp.with_padding(small(), "reflect")(x)
    assert torch.equal(ppp.with_padding(model, "reflect")(x), expected)


def test_a_pool_of_its_own_kind_takes_no_scheme():
    model = Holder(OwnPool(3, 2, 1))
    assert "'pool': a pool of its own kind" in refused(model, "reflect", pools="swap")
    assert type(ppp.with_padding(model, "reflect").pool) is OwnPool


def test_a_swap_inside_inference_mode_is_one_outside():
    with torch.inference_mode():
        swapped = ppp.with_padding(small(), "reflect")
    assert not any(buffer.is_inference() for buffer in swapped.buffers())
