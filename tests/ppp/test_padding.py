import copy
import io
import pickle

import checks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn
from toys import noise, seeded

import ppp
from ppp import SCHEMES, pad
from ppp.errors import PaddingError
from ppp.padding import Scheme

NUMPY = {
    "zeros": {"mode": "constant"},
    "constant(2)": {"mode": "constant", "constant_values": 2},
    "reflect": {"mode": "reflect"},
    "symmetric": {"mode": "symmetric"},
    "replicate": {"mode": "edge"},
    "circular": {"mode": "wrap"},
}
DTYPES = (torch.float16, torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8)


def refused(*arguments) -> str:
    return checks.refused(pad, *arguments, error=PaddingError)


@st.composite
def maps_and_amounts(draw, scheme):
    shape = [draw(st.integers(1, 3)) for _ in range(2)] + [draw(st.integers(1, 7)) for _ in "hw"]
    limit = {"reflect": -1, "symmetric": 0, "circular": 0}.get(scheme)
    most_y, most_x = (9 if limit is None else size + limit for size in shape[2:])
    sides = [draw(st.integers(0, most)) for most in (most_x, most_x, most_y, most_y)]
    x = torch.from_numpy(
        np.random.default_rng(draw(st.integers(0, 999))).integers(0, 200, shape)
    ).to(draw(st.sampled_from(DTYPES)))
    return x, tuple(sides)


@pytest.mark.parametrize("scheme", NUMPY)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_deterministic_schemes_equal_numpy(scheme, data):
    x, (left, right, top, bottom) = data.draw(maps_and_amounts(scheme))
    widths = ((0, 0), (0, 0), (top, bottom), (left, right))
    expected = np.pad(x.numpy(), widths, **NUMPY[scheme])
    got = pad(x, (left, right, top, bottom), scheme)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got.numpy(), expected)


def test_one_integer_pads_every_side_and_zero_returns_the_map():
    x = noise(2, 3, 4, 5)
    for scheme in NUMPY:
        assert torch.equal(pad(x, 2, scheme), pad(x, (2, 2, 2, 2), scheme))
        assert torch.equal(pad(x, 0, scheme), x)


def border_mean(channel: np.ndarray) -> float:
    height, width = channel.shape
    ring = [
        channel[i, j]
        for i in range(height)
        for j in range(width)
        if i in (0, height - 1) or j in (0, width - 1)
    ]
    return float(np.mean(ring))


@pytest.mark.parametrize("shape", [(5, 4), (1, 6), (6, 1), (2, 2), (1, 1), (3, 3)])
def test_mean_fills_with_the_mean_of_the_border_ring(shape):
    x = torch.randn(2, 3, *shape, dtype=torch.float64, generator=seeded())
    padded = pad(x, (1, 2, 3, 0), "mean")
    border = torch.ones(padded.shape[2:], dtype=torch.bool)
    border[3:, 1:-2] = False
    assert torch.equal(padded[:, :, 3:, 1:-2], x)
    for sample in range(2):
        for channel in range(3):
            expected = border_mean(x[sample, channel].numpy())
            np.testing.assert_allclose(padded[sample, channel][border], expected, atol=1e-14)


def test_nan_marks_the_border_and_nothing_else():
    x = noise(1, 2, 3, 4)
    padded = pad(x, (1, 0, 2, 1), "nan")
    assert torch.equal(padded[:, :, 2:-1, 1:], x)
    assert int(padded.isnan().sum()) == padded.numel() - x.numel()


# --- randn -------------------------------------------------------------------------------


def drawn(x: torch.Tensor, scheme: str = "randn", amount: int = 40, seed: int = 0):
    """Padded values of a map, (N, C, cells)."""
    padded = pad(x, amount, scheme, generator=seeded(seed))
    border = torch.ones(padded.shape[2:], dtype=torch.bool)
    border[amount:-amount, amount:-amount] = False
    return padded[:, :, border]


@pytest.mark.parametrize("scheme", ["randn", "randn(map)", "randn(border)"])
def test_randn_draws_from_a_normal_with_the_map_s_mean_and_deviation(scheme):
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64, generator=seeded()).exp()
    x[:, :, 1:-1, 1:-1] += 5  # the ring differs from the map
    values = drawn(x, scheme)
    for sample in range(2):
        for channel in range(3):
            cells = x[sample, channel].numpy()
            if scheme == "randn(border)":
                inside = np.zeros(cells.shape, dtype=bool)
                inside[1:-1, 1:-1] = True
                cells = cells[~inside]
            law = stats.norm(cells.mean(), cells.std())
            assert stats.kstest(values[sample, channel].numpy(), law.cdf).pvalue > 1e-4


def test_randn_is_independent_between_cells_channels_and_samples():
    x = torch.randn(4, 4, 5, 5, dtype=torch.float64, generator=seeded())
    values = drawn(x).flatten(0, 1)  # 16 rows, one for each channel of each sample
    bound = 5 / np.sqrt(values.shape[1])
    between = np.corrcoef(values.numpy()) - np.eye(16)
    assert np.abs(between).max() < bound
    z = (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)
    for lag in (1, 2, 85):  # 85 is the padded width: the cell below
        assert (z[:, lag:] * z[:, :-lag]).mean(1).abs().max() < bound


def test_randn_is_fresh_at_every_call_and_follows_its_generator():
    x = noise(1, 2, 4, 4)
    generator = seeded(7)
    first, second = (pad(x, 1, "randn", generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, pad(x, 1, "randn", generator=seeded(7)))
    state = torch.get_rng_state()
    pad(x, 1, "randn", generator=generator)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    default = pad(x, 1, "randn")
    torch.manual_seed(1)
    assert torch.equal(default, pad(x, 1, "randn"))


@pytest.mark.parametrize("scheme", ["randn", "randn(border)", "mean"])
def test_a_constant_map_stays_constant_and_has_a_finite_gradient(scheme):
    x = torch.zeros(2, 3, 5, 5)
    x[:, 1] = 3.25
    x.requires_grad_()
    padded = pad(x, 2, scheme, generator=seeded())
    assert torch.equal(padded, padded[:, :, 4:5, 4:5].expand_as(padded))
    padded.square().sum().backward()
    assert x.grad.isfinite().all()


# --- for every scheme --------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [*SCHEMES, "constant(0.5)", "randn(border)"])
def test_channels_last_is_kept_with_equal_values(scheme):
    x = noise(2, 3, 6, 5)
    plain = pad(x, (1, 2, 3, 0), scheme, generator=seeded(1))
    last = x.contiguous(memory_format=torch.channels_last)
    got = pad(last, (1, 2, 3, 0), scheme, generator=seeded(1))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert plain.is_contiguous()
    torch.testing.assert_close(got, plain, equal_nan=True, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "nan"])
def test_gradients_are_right(scheme):
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, generator=seeded(), requires_grad=True)
    torch.autograd.gradcheck(
        lambda maps: pad(maps, (1, 2, 2, 1), scheme, generator=seeded(1)), (x,)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_half_precision(scheme, dtype):
    x = (noise(1, 2, 40, 40) * 100 + 300).to(dtype)
    got = pad(x, 1, scheme, generator=seeded(1))
    assert got.dtype == dtype
    assert torch.equal(got[:, :, 1:-1, 1:-1], x)
    reference = pad(x.float(), 1, scheme, generator=seeded(1)).to(dtype)
    torch.testing.assert_close(got, reference, equal_nan=True)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_input_is_left_alone(scheme):
    x = noise(1, 2, 4, 4)
    before = x.clone()
    pad(x, 1, scheme).fill_(9.0)
    assert torch.equal(x, before)


# --- circular, which does not go through PyTorch's -----------------------------------------

# on a map of 4 x 6: uneven, none on some sides, one side alone, as much as the map has
SIDES = [
    (1, 1, 1, 1), (2, 1, 0, 3), (0, 0, 2, 1), (3, 2, 0, 0), (0, 5, 0, 0), (0, 0, 4, 0),
    (6, 6, 4, 4), (6, 0, 0, 4), (5, 6, 3, 4),
]  # fmt: skip
FORMATS = [torch.contiguous_format, torch.channels_last]


def circular_map(dtype=torch.float32, layout=torch.contiguous_format) -> torch.Tensor:
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=seeded()).to(dtype)
    return x.contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sides", SIDES)
def test_circular_is_bit_equal_to_pytorch_s(sides, dtype, layout):
    x = circular_map(dtype, layout)
    x[0, 0, 1, 2], x[1, 2, 3, 5] = float("nan"), float("-inf")
    got = pad(x, sides, "circular")
    torch.testing.assert_close(got, F.pad(x, sides, "circular"), equal_nan=True, rtol=0, atol=0)
    assert got.dtype == dtype and got.is_contiguous(memory_format=layout)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(
                pad(x, sides, "circular"), got, equal_nan=True, rtol=0, atol=0
            )


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("sides", SIDES)
def test_the_gradient_of_circular_is_pytorch_s(sides, layout):
    first, second = (circular_map(layout=layout).requires_grad_() for _ in range(2))
    mine, theirs = pad(first, sides, "circular"), F.pad(second, sides, "circular")
    # whole numbers, whose sums are exact in any order
    whole = torch.randint(-9, 9, mine.shape, generator=seeded()).float()
    (mine * whole).sum().backward()
    (theirs * whole).sum().backward()
    assert torch.equal(first.grad, second.grad)
    first.grad = None
    pad(first, sides, "circular").sum().backward()  # a gradient without memory of its own
    assert first.grad.sum() == mine.numel()
    x = circular_map(torch.float64, layout)[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: pad(maps, sides, "circular"), (x,))


def test_circular_has_second_derivatives_and_one_for_every_sample():
    mine, theirs = networks()
    mine, theirs, x = mine[:1].double(), theirs[:1].double(), noise(3, 3, 6, 6).double()

    def penalty(model: nn.Module) -> torch.Tensor:  # as of critics: the size of a gradient
        given = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(given).pow(3).sum(), given, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), model[0].weight)[0]

    torch.testing.assert_close(penalty(mine), penalty(theirs))

    def loss(weights: dict, sample: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(mine, weights, (sample[None],)).square().sum()

    weights = {name: value.detach() for name, value in mine.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)["0.weight"]
    for found, sample in zip(each, x, strict=True):
        (expected,) = torch.autograd.grad(theirs(sample[None]).square().sum(), theirs[0].weight)
        torch.testing.assert_close(found, expected)


def test_circular_leaves_the_gradient_that_it_is_given_alone():
    x = circular_map().requires_grad_()
    padded = pad(x, 2, "circular")
    given_gradient = torch.randn(padded.shape, generator=seeded())
    before = given_gradient.clone()
    padded.backward(given_gradient)
    assert torch.equal(given_gradient, before)


def networks():
    """A network with circular padding, ours and PyTorch's."""

    def build(mode: str) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), nn.ReLU(),
            nn.Conv2d(4, 4, (5, 3), stride=2, padding=(2, 0), padding_mode=mode),
        ).eval()  # fmt: skip

    return ppp.with_padding(build("zeros"), "circular"), build("circular")


def test_a_network_with_circular_padding_can_be_copied_kept_and_trained():
    mine, theirs = networks()
    x = noise(2, 3, 16, 16)
    expected = theirs(x)
    content = io.BytesIO()
    torch.save(mine, content)
    content.seek(0)
    for same in (
        mine,
        copy.deepcopy(mine),
        pickle.loads(pickle.dumps(mine)),
        torch.load(content, weights_only=False),
    ):
        got = same(x)
        assert torch.equal(got, expected)
        weights = list(same.parameters())
        gradients = torch.autograd.grad(got.square().sum(), weights)
        reference = torch.autograd.grad(theirs(x).square().sum(), list(theirs.parameters()))
        for one, other in zip(gradients, reference, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_circular_padding_is_covered_and_audited_as_pytorch_s_is():
    found, expected = (ppp.coverage(net, ["0", "2"], 16) for net in networks())
    for layer in ("0", "2"):
        assert np.array_equal(found[layer].influence, expected[layer].influence)
        assert found[layer].touched == expected[layer].touched
    assert found["0"].touched == (1, 1, 1, 1) and found.margin == expected.margin
    first, second = (ppp.audit(net, 16).table() for net in networks())
    assert list(first["fill"]) == ["circular", "circular"]
    assert first.drop(columns="module").equals(second.drop(columns="module"))


def test_two_schemes_pad_the_two_axes():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    expected = [[0, 0, 0, 0, 0], [2, 0, 1, 2, 0], [5, 3, 4, 5, 3]]
    assert pad(x, (1, 1, 1, 0), "circular|zeros")[0, 0].tolist() == expected
    expected = [[0, 1, 2, 0], [3, 4, 5, 3], [0, 1, 2, 0]]
    assert pad(x, (0, 1, 0, 1), "circular|reflect")[0, 0].tolist() == expected
    scheme = Scheme.parse("constant(0.5)|randn(border)")
    assert str(scheme) == "constant(0.5)|randn(border)" and scheme.random
    for wrong in ("circular|", "|zeros", "circular|zero", "partial|zeros"):
        assert "unknown padding" in refused(x, 1, wrong)


# --- refusals ----------------------------------------------------------------------------


def test_an_unknown_scheme_is_refused_with_the_nearest_name():
    x = torch.zeros(1, 1, 4, 4)
    assert "did you mean 'reflect'?" in refused(x, 1, "refelct")
    assert "did you mean 'circular'?" in refused(x, 1, "circlar")
    for scheme in ("", "zeros(1)", "randn(ring)", "constant(one)", None, "reflect)"):
        assert str(scheme) in refused(x, 1, scheme)


@pytest.mark.parametrize(
    ("scheme", "shape", "amount", "most"),
    [
        ("reflect", (4, 6), (0, 0, 4, 0), "height 4; at most 3"),
        ("reflect", (6, 4), (0, 4, 0, 0), "width 4; at most 3"),
        ("reflect", (1, 1), 1, "at most 0"),
        ("circular", (6, 4), (5, 0, 0, 0), "width 4; at most 4"),
        ("symmetric", (4, 6), (0, 0, 0, 5), "height 4; at most 4"),
    ],
)
def test_amounts_that_a_scheme_cannot_supply_are_refused(scheme, shape, amount, most):
    message = refused(torch.zeros(1, 1, *shape), amount, scheme)
    assert scheme in message and most in message


def test_the_largest_possible_amounts_work():
    x = noise(1, 1, 4, 4)
    assert pad(x, 3, "reflect").shape == (1, 1, 10, 10)
    assert pad(x, 4, "circular").shape == pad(x, 4, "symmetric").shape == (1, 1, 12, 12)


@pytest.mark.parametrize(
    "amount", [-1, (0, 0, 0, -2), (1, 1), (1, 1, 1, 1, 1), (1, 1, 1, 1.0), 1.5, None, "1111", True]
)
def test_malformed_amounts_are_refused(amount):
    assert repr(amount) in refused(torch.zeros(1, 1, 4, 4), amount, "zeros")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(3, 4, 4), (4, 4), (1, 3, 4, 4, 4)])
def test_only_four_axes_are_padded(shape, scheme):
    assert str(shape) in refused(torch.zeros(shape), 1, scheme)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 0, 4, 4), (1, 3, 0, 4)])
def test_empty_maps_are_refused(shape):
    for scheme in SCHEMES:
        assert "empty" in refused(torch.zeros(shape), 1, scheme)


@pytest.mark.parametrize("scheme", ["randn", "mean", "nan", "constant(0.5)"])
def test_integer_maps_are_refused_where_the_scheme_needs_fractions(scheme):
    assert "torch.int64" in refused(torch.zeros(1, 1, 4, 4, dtype=torch.int64), 1, scheme)


def test_schemes_read_back_what_they_write():
    for text in (*SCHEMES, "constant(0.5)", "constant(-3)", "randn(border)"):
        assert str(Scheme.parse(text)) == text
        assert Scheme.parse(Scheme.parse(text)) == Scheme.parse(text)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_constant_that_is_no_finite_number_is_refused(value):
    for scheme in (f"constant({value})", Scheme("constant", float(value))):
        with pytest.raises(PaddingError, match="expected a finite number") as caught:
            pad(torch.zeros(1, 1, 3, 3), 1, scheme)
        assert "\n" not in str(caught.value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_constant_keeps_all_its_digits(value):
    assert Scheme.parse(str(Scheme("constant", value))).value == value
    assert str(Scheme.parse("constant(0.123456789)")) == "constant(0.123456789)"
    assert str(Scheme.parse("constant(2.0)")) == "constant(2)"
