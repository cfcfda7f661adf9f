"""The two small networks: their maps, their padding, and the one without any."""

import pytest
import torch
import torchvision

import ppp
from ppp.errors import PaddingError, PPPError
from studies.networks import layers_of_interest, rebuilt, small_resnet, small_vgg
from studies.networks.small import pad_with


@pytest.mark.parametrize(
    ("make", "sides"), [(small_resnet, (48, 48, 24, 12, 6)), (small_vgg, (96, 48, 24, 12, 6))]
)
def test_small_networks_have_the_declared_maps(make, sides):
    model = make(classes=5).eval()
    layers = {
        small_resnet: ["relu", "layer1", "layer2", "layer3", "layer4"],
        small_vgg: [f"features.{i}" for i in (2, 9, 16, 23, 30)],
    }
    assert layers_of_interest(model) == layers[make]
    seen = []
    for layer in layers_of_interest(model):
        hook = lambda _, __, out: seen.append(tuple(out.shape[1:]))  # noqa: E731
        model.get_submodule(layer).register_forward_hook(hook)
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 96, 96)).shape == (2, 5)
    widths = (16, 16, 32, 48, 80) if make is small_resnet else (16, 24, 32, 48, 64)
    assert seen == [(c, s, s) for c, s in zip(widths, sides)]


def test_initialisation_follows_the_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = small_resnet(seed=3), small_resnet(seed=3), small_resnet(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.layer3.conv1.weight, again.layer3.conv1.weight)
    assert not torch.equal(first.layer3.conv1.weight, other.layer3.conv1.weight)


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_padding_changes_the_border_and_not_the_weights(make):
    zeros, reflect = make().eval(), make(padding="reflect").eval()
    assert zeros.state_dict().keys() == reflect.state_dict().keys()
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    layer = layers_of_interest(zeros)[0]
    maps = []
    for model in (zeros, reflect):
        model.get_submodule(layer).register_forward_hook(
            lambda _, __, out: maps.append(out.clone())
        )
        with torch.inference_mode():
            model(pixels)
    differ = (maps[0] != maps[1]).any(1)[0]
    assert bool(differ[0].any()) and not bool(differ[4:-4, 4:-4].any())
    with pytest.raises(PaddingError, match="did you mean 'reflect'"):
        make(padding="refelct")


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_padding_touches_all_of_the_last_layer_and_not_of_the_one_before(make):
    model = make().eval()
    layers = layers_of_interest(model)
    clean = [reach.clean_fraction for reach in ppp.coverage(model, layers, 96).values()]
    assert clean[-1] == 0 < clean[-2]
    assert clean == sorted(clean, reverse=True)


def busy(make, **options):
    """Make a network in evaluation mode whose batch norm does something."""
    model = make(**options)
    draw = torch.Generator().manual_seed(6)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2, generator=draw)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2, generator=draw)
    return model.eval()


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_a_surrounded_network_gives_what_padding_far_away_cannot_touch(make):
    padded = busy(make, seed=4)
    surrounded = rebuilt(padded, "optimal")
    before, after = surrounded.surroundings
    assert make(padding="optimal").surroundings == (before, after)
    layers = layers_of_interest(padded)
    far, window = 192, slice(192 - before, 192 + 96 + after)  # 192 is a multiple of all strides
    picture = torch.rand(2, 3, 480, 480, generator=torch.Generator().manual_seed(5)) * 4 - 2
    wide = ppp.extract(padded, picture, layers)
    close = ppp.extract(surrounded, picture[..., window, window], layers)
    probe = ppp.coverage(padded, layers, 480)
    for layer in layers:
        stride = probe[layer].stride[0]
        side, first = 96 // stride, far // stride
        expected = wide[layer][..., first : first + side, first : first + side]
        assert not probe[layer].influence[first : first + side, first : first + side].any()
        # Deeper layers have less of the surroundings left: find where the window begins.
        left = close[layer].shape[-1] - side
        scale = float(expected.abs().max())
        fits = [
            offset
            for offset in range(left + 1)
            if torch.allclose(
                close[layer][..., offset : offset + side, offset : offset + side],
                expected, rtol=0, atol=1e-5 * scale,
            )
        ]  # fmt: skip
        assert len(fits) == 1, layer
    assert close[layers[-1]].shape[-1] >= 6
    features = wide[layers[-1]][..., first : first + side, first : first + side]
    with torch.inference_mode():
        if make is small_vgg:
            features = torch.nn.functional.max_pool2d(features, 2)
        pooled = features.mean((2, 3))
        scores = (padded.fc if make is small_resnet else padded.classifier)(pooled)
        found = surrounded(picture[..., window, window])
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-5 * float(scores.abs().max()))


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
@pytest.mark.parametrize("training", [True, False])
def test_rebuilding_keeps_the_weights_and_the_mode(make, training):
    model = busy(make, classes=5, padding="reflect", seed=2).train(training)
    state = torch.get_rng_state()
    there = rebuilt(model, "optimal")
    back = rebuilt(there, "reflect")
    assert torch.equal(torch.get_rng_state(), state)
    before = model.state_dict()
    for other in (there, back, rebuilt(back, "zeros")):
        assert other.training == training and type(other) is type(model)
        assert other.state_dict().keys() == before.keys()
        assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
        assert next(other.parameters()) is not next(model.parameters())
    assert back.surroundings == model.surroundings == (0, 0)
    pixels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(pixels), back.eval()(pixels))


def test_only_small_networks_are_rebuilt():
    with torch.device("meta"):
        other = torchvision.models.resnet18()
    with pytest.raises(PPPError, match=r"ResNet is no small network; see ppp\.with_padding"):
        rebuilt(other, "optimal")
    with pytest.raises(PaddingError, match="did you mean 'reflect'"):
        rebuilt(small_vgg(), "refelct")
    with pytest.raises(PaddingError, match="unknown padding 'mixed'"):
        rebuilt(small_vgg(), "mixed")


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_a_mixed_network_pads_with_zeros_and_then_with_what_is_said(make):
    mixed, zeros = make(padding="mixed", seed=2).eval(), make(seed=2).eval()
    assert mixed.state_dict().keys() == zeros.state_dict().keys()
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for scheme in ("zeros", "circular", "reflect", "zeros"):
            pad_with(mixed, scheme)
            expected = make(padding=scheme, seed=2).eval()(pixels)
            torch.testing.assert_close(mixed(pixels), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(PaddingError, match="did you mean 'circular'"):
        pad_with(mixed, "circlar")


def test_stochastic_padding_draws_from_the_given_generator():
    pixels = torch.rand(1, 3, 96, 96)
    outputs = []
    for seed in (1, 1, 2):
        model = small_vgg(padding="randn", generator=torch.Generator().manual_seed(seed)).eval()
        with torch.inference_mode():
            outputs.append(model(pixels))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
