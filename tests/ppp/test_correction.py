"""Patterns are taken away: exactly, in order, from maps of the measured size, from a copy."""

import copy
import pickle

import numpy as np
import pytest
import torch
from checks import refused
from planted import Planted, TwoSites
from toys import LAYERS, Function, noise, sequential, unchanged

import ppp
from ppp.correction import patterns, permuted_channels, random_signs
from ppp.errors import LayerError, SwapError

SMALL = 1e-6


@pytest.fixture(scope="module")
def measured(model, windows, coverage):
    return ppp.measure(model, windows, LAYERS, coverage=coverage)


@pytest.fixture(scope="module")
def in_order(model, windows, coverage):
    return ppp.corrected_in_order(model, windows, LAYERS[::-1], coverage=coverage)


# --- what is taken away -------------------------------------------------------------------


def test_a_planted_pattern_is_taken_away_exactly():
    planted = Planted((2.0, -1.0, 0.5), (0.0,) * 3)  # each window shows the pattern alone
    network, windows = planted.network(), planted.windows(4, 2)
    copied = ppp.corrected(network, ppp.measure(network, windows, ["0"]))
    found = ppp.measure(copied, windows, ["0"])["0"]
    assert not found.pattern.any() and not found.deviation.any()
    expected = planted.border * np.array(planted.a)[:, None, None]
    np.testing.assert_allclose(patterns(copied)["0"], expected, atol=SMALL)
    true = {"0": torch.from_numpy(expected).float()}
    others = planted.windows(4, 2, seed=1, name="other")
    found = ppp.measure(ppp.corrected(network, true), others, ["0"])["0"]
    np.testing.assert_allclose(found.pattern, 0, atol=SMALL)


def test_noise_of_the_pattern_stays():
    planted = Planted((2.0,) * 4, (0.5,) * 4)
    network, first = planted.network(), planted.windows(64)
    copied = ppp.corrected(network, ppp.measure(network, first, ["0"]), "0")
    second = planted.windows(64, seed=1, name="other")
    found = ppp.measure(copied, second, ["0"], groups=1000)["0"]
    bound = 4.5 * 0.5 * abs(planted.border) * np.sqrt(2 / 64)
    assert (abs(found.pattern) <= bound + SMALL).all()
    np.testing.assert_allclose(found.deviation.mean(0), abs(0.5 * planted.border), rtol=0.35)


def test_what_is_left_is_measured_behind_a_corrected_layer():
    """Of two planted patterns in a linear network, the second is left."""
    planted = TwoSites(((1.0,), (2.0,)), ((0.0,), (0.0,)), (1.0,))
    network, windows = planted.network(), planted.windows(4, 2)
    whole = ppp.measure(network, windows, ["0", "1"])
    np.testing.assert_allclose(whole["1"].pattern, planted.patterns.sum(0), atol=SMALL)
    copied = ppp.corrected(network, whole, ["0"])
    left = ppp.measure(copied, windows, ["0", "1"])
    assert not left["0"].pattern.any()
    np.testing.assert_allclose(left["1"].pattern, planted.patterns[1], atol=SMALL)
    both = ppp.corrected_in_order(network, windows, ["1", "0"])
    assert not any(found.pattern.any() for found in ppp.measure(both, windows, ["0", "1"]).values())
    np.testing.assert_allclose(patterns(both)["0"][:1], planted.patterns[0], atol=SMALL)
    np.testing.assert_allclose(patterns(both)["1"], planted.patterns[1], atol=SMALL)


def test_in_order_nothing_is_left_and_side_by_side_something_is(
    model, windows, coverage, measured, in_order
):
    assert list(patterns(in_order)) == LAYERS
    left = ppp.measure(in_order, windows, LAYERS)
    for layer in LAYERS:
        size = abs(measured[layer].pattern).max()
        assert abs(left[layer].pattern).max() < 1e-5 * size
        assert left[layer].completeness.shown and left[layer].null_test.passed is not False
    beside = ppp.corrected(model, {layer: measured[layer].pattern for layer in LAYERS})
    left = ppp.measure(beside, windows, LAYERS, coverage=coverage)
    assert left["6"].mae_raw > 0.01 * measured["6"].mae_raw
    by_hand = model
    for layer in LAYERS:
        found = ppp.measure(by_hand, windows, [layer], coverage=coverage)
        by_hand = ppp.corrected(by_hand, found)
    for layer, pattern in patterns(by_hand).items():
        assert np.array_equal(pattern, patterns(in_order)[layer])


def test_a_copy_has_the_coverage_and_the_true_features_of_the_network(
    model, windows, coverage, in_order
):
    found = ppp.coverage(in_order, LAYERS, 20)
    assert repr(found) == repr(coverage)
    picture = next(iter(windows))
    both = [
        ppp.optimal(network, picture.pixels, picture.tops, picture.lefts, coverage)
        for network in (model, in_order)
    ]
    for layer in LAYERS:
        assert torch.equal(both[0].maps[layer], both[1].maps[layer])
        assert torch.equal(*(truth.features()[layer] for truth in both))
        padded = [truth.features(())[layer] for truth in both]
        first = layer == LAYERS[0]
        expected = padded[0] - torch.from_numpy(patterns(in_order)[layer])
        assert torch.equal(padded[1], expected) is first


# --- where it is taken away ----------------------------------------------------------------


def test_maps_of_any_other_size_are_left_as_they_are(model, measured):
    copied = ppp.corrected(model, measured, "4")
    for height, width in ((20, 20), (24, 20), (20, 16), (64, 48)):
        x = noise(2, 3, height, width)
        expected, found = (ppp.extract(net, x, LAYERS) for net in (model, copied))
        assert torch.equal(expected["2"], found["2"])
        if (height, width) == (20, 20):
            pattern = torch.from_numpy(measured["4"].pattern)
            assert torch.equal(found["4"], expected["4"] - pattern)
            assert not torch.equal(found["6"], expected["6"])
        else:
            assert all(torch.equal(found[layer], expected[layer]) for layer in LAYERS)


def test_the_network_stays_as_it_was_and_the_copy_shares_its_parameters(model, measured):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = ppp.corrected(model, measured, ["2"])
    assert unchanged(model, before)
    assert all(a is b for a, b in zip(model.parameters(), copied.parameters()))
    assert copied[1].running_mean is not model[1].running_mean
    assert copied.state_dict().keys() - before.keys() == {"2.subtracted_pattern"}
    assert [m.training for m in copied.modules()] == [m.training for m in model.modules()]


@pytest.mark.parametrize("training", [False, True])
def test_gradients_and_modes_are_kept(measured, model, training):
    network = copy.deepcopy(model).train(training)
    network[0].weight.requires_grad_(False)
    copied = ppp.corrected(network, {"6": measured["6"].pattern})
    assert copied.training is training
    assert [p.requires_grad for p in copied.parameters()] == [
        p.requires_grad for p in network.parameters()
    ]
    copied(noise(2, 3, 20, 20)).sum().backward()
    assert network[0].weight.grad is None and network[3].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "double", "padding"])
def test_a_copy_can_be_copied_saved_converted_and_swapped(model, measured, how):
    copied, x = ppp.corrected(model, measured, "2"), noise(1, 3, 20, 20)
    again = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda net: pickle.loads(pickle.dumps(net)),
        "double": lambda net: copy.deepcopy(net).double(),
        "padding": lambda net: ppp.with_padding(net, "zeros"),
    }[how](copied)
    found = again(x.double() if how == "double" else x)
    torch.testing.assert_close(found.float(), copied(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(copied(x), model(x), atol=1e-6)


def test_inference_mode_and_random_padding(model, windows, coverage):
    randn = ppp.with_padding(model, "randn", generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        copied = ppp.corrected_in_order(randn, windows, LAYERS, coverage=coverage, seed=1)
    left = ppp.measure(copied, windows, "2", coverage=coverage, seed=1)  # the same draws
    assert abs(left["2"].pattern).max() < 1e-6


# --- controls ------------------------------------------------------------------------------


def test_controls_keep_sizes_and_lose_the_pattern(measured):
    pattern = measured["6"].pattern
    signed = random_signs(pattern, seed=0)
    assert np.array_equal(abs(signed), abs(pattern)) and signed.dtype == pattern.dtype
    touched = pattern != 0
    assert 0.4 < (signed == pattern)[touched].mean() < 0.6
    assert np.array_equal(signed, random_signs(torch.from_numpy(pattern), seed=0))
    assert not np.array_equal(signed, random_signs(pattern, seed=1))
    for seed in range(5):
        moved = permuted_channels(pattern, seed)
        source = [[np.array_equal(a, b) for b in pattern].index(True) for a in moved]
        assert sorted(source) == list(range(len(pattern)))
        assert all(i != j for i, j in enumerate(source))


def test_a_control_is_subtracted_as_it_is(model, windows, coverage, measured):
    control = random_signs(measured["6"].pattern, seed=0)
    found = ppp.measure(ppp.corrected(model, {"6": control}), windows, ["6"], coverage=coverage)
    expected = measured["6"].pattern - control
    np.testing.assert_allclose(found["6"].pattern, expected, atol=1e-5 * abs(expected).max())
    assert found["6"].null_test.passed is not False


# --- what is refused ------------------------------------------------------------------------


def test_layers_that_are_not_there_or_were_not_measured(model, measured, windows, coverage):
    said = refused(ppp.corrected, model, measured, ["layer4"], error=LayerError)
    assert "'layer4'" in said and "known: 2, 4, 6" in said
    said = refused(ppp.corrected, model, measured, ["3"], error=LayerError)
    assert "among the patterns" in said
    zeros = {"conv1": np.zeros((1, 2, 2))}
    assert "'conv1'" in refused(ppp.corrected, model, zeros, error=LayerError)
    options = {"coverage": coverage, "error": LayerError}
    assert "'7'" in refused(ppp.corrected_in_order, model, windows, ["2", "7"], **options)


def test_layers_measured_side_by_side(model, measured):
    for layers in (None, ["2", "6"]):
        assert "corrected_in_order" in refused(ppp.corrected, model, measured, layers)


def test_measurements_of_other_networks(model, measured, windows, coverage, in_order):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight += 1e-3
    assert "another network" in refused(ppp.corrected, other, measured, "2")
    assert ppp.corrected(copy.deepcopy(model), measured, "2")
    of_copy = ppp.measure(in_order, windows, ["6"], coverage=coverage)
    assert "another network" in refused(ppp.corrected, model, of_copy)
    said = refused(ppp.corrected, in_order, of_copy)
    assert "'6' is corrected already" in said
    swapped = ppp.measure(model, windows, ["2"], "reflect", coverage=coverage)
    assert "reflect" in refused(ppp.corrected, model, swapped)


@pytest.mark.parametrize(
    "pattern", [np.zeros((4, 5)), np.full((4, 5, 5), np.nan), torch.zeros(1, 4, 5, 5)]
)
def test_patterns_that_are_no_maps(model, pattern):
    assert "'6'" in refused(ppp.corrected, model, {"6": pattern})


def test_outputs_that_are_no_maps_or_of_other_channels(model):
    x = noise(1, 3, 20, 20)
    other = ppp.corrected(model, {"2": np.ones((5, 20, 20))})
    assert "6 channels" in refused(other, x, error=LayerError)
    for function, kind in ((lambda m: (m, m), "tuple"), (lambda m: m.mean((2, 3)), "(1, 6)")):
        network = sequential(*list(model)[:2], Function(function))
        copied = ppp.corrected(network, {"2": np.ones((6, 20, 20))})
        said = refused(copied, x, error=LayerError)
        assert f"gives {kind}" in said and "(N, C, H, W)" in said


def test_networks_that_a_copy_would_not_follow(model):
    class Uncopyable(torch.nn.Sequential):
        def __deepcopy__(self, memo):
            raise RuntimeError("not me")

    zeros = {"0": np.zeros((6, 20, 20))}
    said = refused(ppp.corrected, Uncopyable(*model).eval(), zeros, error=SwapError)
    assert "not me" in said
    replaced = torch.nn.Sequential(torch.nn.Sequential(*copy.deepcopy(model)))
    inner = replaced[0]
    inner.forward = lambda x: torch.nn.Sequential.forward(inner, x)
    zeros = {"0.0": np.zeros((6, 20, 20))}
    assert "'0' has its forward" in refused(ppp.corrected, replaced, zeros, error=SwapError)
