import pytest
import torch
import torchvision
from checks import refused
from torch import nn

import ppp
from ppp.errors import LayerError, MarginError
from studies.networks import layers

Sequential, Conv = nn.Sequential, nn.Conv2d


def conv(before: int, after: int, stride: int = 1) -> nn.Module:
    return Sequential(Conv(before, after, 3, stride, 1), nn.ReLU())


class Squeeze(nn.Module):
    """Squeeze-excitation without the excitation."""

    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True)


class Trunk(nn.Module):
    """A trunk of blocks, and a head behind a global pool."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.features = Sequential(*blocks)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.pool(self.features(x)).flatten(1))


def plain() -> nn.Module:
    torch.manual_seed(0)
    blocks = conv(3, 4, 2), conv(4, 4), conv(4, 4, 2), conv(4, 4, 2), conv(4, 4)
    return Trunk(*blocks).eval()


def squeezed() -> nn.Module:
    torch.manual_seed(0)
    inner = Sequential(conv(4, 4), Squeeze())
    return Trunk(conv(3, 4, 2), inner, conv(4, 4, 2), conv(4, 4, 2)).eval()


def same(first: ppp.influence.Coverage, second: ppp.influence.Coverage) -> bool:
    return first.input_size == second.input_size and first.table().equals(second.table())


# ----------------------------------------------------------------------------------- the rules


def test_resnets_have_defined_layers():
    model = torchvision.models.resnet18(weights=None).eval()
    choice = layers.choose(model, 96)
    assert choice.layers == ("relu", "layer1", "layer2", "layer3", "layer4")
    assert choice.rule == "stages of a ResNet or VGG" and choice.refused == {}
    assert same(choice.coverage, ppp.coverage(model, choice.layers, 96))


def test_elsewhere_it_is_the_deepest_block_at_each_stride():
    choice = layers.choose(plain(), (64, 96))
    assert choice.layers == ("features.1", "features.2", "features.4")
    assert [layer.stride for layer in choice.coverage.values()] == [(2, 2), (4, 4), (8, 8)]
    assert choice.rule == "deepest at each stride" and choice.refused == {}
    assert same(choice.coverage, ppp.coverage(plain(), choice.layers, (64, 96)))


@pytest.mark.parametrize(
    ("modules", "names"),
    [
        ([nn.Conv2d(3, 8, 7, 7), nn.Conv2d(8, 8, 3, padding=1)], ("1",)),
        ([Conv(3, 8, 3, padding=1), nn.MaxPool2d(3), Conv(8, 8, 3, padding=1)], ("0", "2")),
        ([nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)], ("0", "1")),
    ],
)
def test_strides_of_any_kind_are_told(modules, names):
    found = layers.choose(Sequential(*modules).eval(), 84)
    assert found.layers == names


def test_at_most_so_many_the_deepest_are_kept():
    assert layers.choose(plain(), 64, most=2).layers == ("features.2", "features.4")


def test_what_lies_before_the_first_squeeze_can_be_measured():
    choice = layers.choose(squeezed(), 64)
    assert choice.layers == ("features.0",)
    assert list(choice.refused) == ["features.1.1", "features.1", "features.2", "features.3"]
    assert "reached from 'features.1.1' (Squeeze, mean) on" in choice.refused["features.1.1"]
    for name in ("features.1", "features.2", "features.3"):
        assert "every pixel, as in 'features.1.1' before it" in choice.refused[name]
        with pytest.raises(MarginError, match="no finite margin"):  # so it is, on its own too
            ppp.coverage(squeezed(), [name], 64)


def test_a_wide_reach_is_no_squeeze():
    wide = Sequential(*(Conv(4, 4, 3, padding=80, dilation=80) for _ in range(4)))
    model = Trunk(conv(3, 4, 4), wide, conv(4, 4, 2), conv(4, 4, 2)).eval()
    choice = layers.choose(model, 64)
    assert choice.layers == ("features.1", "features.2", "features.3")
    assert choice.refused == {} and choice.coverage["features.3"].margin[0] > 4 * 4 * 80


# ------------------------------------------------------------------------- what is no candidate


class Odd(nn.Module):
    """A block that runs twice, tokens, and a map resized to a fixed size, before a last map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.last = conv(3, 4, 2), conv(4, 4), conv(4, 4)
        self.tokens, self.fixed = nn.Flatten(2), nn.Upsample(size=(8, 8))

    def forward(self, x):
        x = self.twice(self.twice(self.stem(x)))
        self.tokens(x), self.fixed(x)
        return self.last(x)


def test_what_is_no_map_is_named_with_its_reason():
    choice = layers.choose(Odd().eval(), 32)
    assert choice.layers == ("last",)
    assert choice.refused == {
        "twice": "runs more than once per forward pass",
        "tokens": "gives (1, 4, 256), no feature maps (N, C, H, W)",
        "fixed": "gives (1, 4, 8, 8); its rows grow by 0 for 512 px more input, which is no "
        "whole stride",
    }


class Fixed(nn.Module):
    """Runs at one size only."""

    def forward(self, x):
        if x.shape[-1] != 16:
            raise ValueError(f"expected 16 columns, got {x.shape[-1]}")
        return x


def test_layers_before_a_fixed_size_can_be_measured():
    choice = layers.choose(Trunk(conv(3, 4, 2), Fixed(), conv(4, 4, 2)).eval(), 32)
    assert choice.layers == ("features.0",)
    assert "1024 x 128 input: expected 16 columns, got 64" in choice.refused["features"]


def test_a_network_with_none_is_refused_with_the_first_reason():
    said = refused(
        layers.choose, Trunk(Squeeze(), conv(3, 4, 2), conv(4, 4)).eval(), 32, error=LayerError
    )
    assert said.startswith("no layer of Trunk can be measured; the first refused: layer 'features")
    assert "no finite margin" in said
    model = torchvision.models.VisionTransformer(32, 16, 1, 1, 8, 8).eval()
    said = refused(layers.choose, model, 32, error=LayerError)
    assert "layer 'conv_proj': the model does not run on" in said and "got 1024" in said


# ------------------------------------------------------------ layers that do not move with input


class Position(nn.Module):
    """Adds the number of the row."""

    def forward(self, x):
        return x + torch.arange(x.shape[2])[:, None] / 100


class Blocks(nn.Module):
    """Takes the mean of every 3 x 3 cells, counted from the border."""

    def forward(self, x):
        pooled = nn.functional.avg_pool2d(x, 3, ceil_mode=True, count_include_pad=False)
        return pooled.repeat_interleave(3, 2).repeat_interleave(3, 3)[..., : x.shape[2], :][
            ..., : x.shape[3]
        ]


@pytest.mark.parametrize("module", [Position(), Blocks()])
def test_a_layer_that_knows_where_it_is_is_refused(module):
    torch.manual_seed(0)
    before = conv(3, 4, 2), *(conv(4, 4) for _ in range(4))
    model = Trunk(*before, module, conv(4, 4), conv(4, 4, 2)).eval()
    choice = layers.choose(model, 32)
    assert choice.layers == ("features.4",)
    (name,) = choice.refused
    assert name in ("features.6", "features.7")  # those that would have been chosen
    assert "depends on where a cell lies" in choice.refused[name]
    said = refused(layers.choose, model, 32, ["features.4", "features.5"], error=MarginError)
    assert "depends on where" in said and said.endswith("before it, features.4 can be measured")


def test_swin_is_measured_at_its_patches_alone():
    model = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [1, 1], [7, 7]).eval()
    choice = layers.choose(model, 64)
    assert choice.layers == ("features.0.0",)
    assert "depends on where a cell lies" in choice.refused["permute"]


def test_random_padding_of_its_own_does_not_count():
    model = ppp.with_padding(plain(), "randn")
    assert layers.choose(model, 64).layers == ("features.1", "features.2", "features.4")


# ---------------------------------------------------------------------------- as they are named


def test_named_layers_are_taken_in_their_order():
    choice = layers.choose(plain(), 64, ["features.3", "features.0.0"])
    assert choice.layers == ("features.3", "features.0.0") and choice.rule == "as named"
    assert same(choice.coverage, ppp.coverage(plain(), choice.layers, 64))
    assert layers.choose(plain(), 64, "features.3").layers == ("features.3",)


def test_named_layers_without_a_margin_are_refused():
    said = refused(
        layers.choose,
        squeezed(),
        64,
        ["features.0", "features.1.0", "features.2"],
        error=MarginError,
    )
    assert said.startswith("layer 'features.2' has no finite margin")
    assert said.endswith("before it, features.0, features.1.0 can be measured")
    said = refused(layers.choose, squeezed(), 64, ["features.1"], error=MarginError)
    assert said.endswith("none was named before it")


def test_bad_arguments_are_refused():
    said = refused(layers.choose, plain(), 64, ["feature.0"], error=LayerError)
    assert "unknown layer 'feature.0'; did you mean 'features.0'?" in said
    assert "no layer given" in refused(layers.choose, plain(), 64, [], error=LayerError)
    assert "train mode" in refused(layers.choose, plain().train(), 64)
    assert "input size 0" in refused(layers.choose, plain(), 0)
    assert "most is 0" in refused(layers.choose, plain(), 64, most=0)
    assert "does not run on a 2 x 2 input" in refused(layers.choose, Trunk(Conv(3, 4, 5)).eval(), 2)
    assert "Conv2d" in refused(layers.choose, Sequential(nn.ReLU()).eval(), 64)


def test_the_model_is_left_as_it_was():
    model = plain().double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert layers.choose(model, 64).layers == ("features.1", "features.2", "features.4")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_of_interest():
    expected = ["relu", "layer1", "layer2", "layer3", "layer4"]
    with torch.device("meta"):
        assert layers.layers_of_interest(torchvision.models.resnet18()) == expected
        vgg = layers.layers_of_interest(torchvision.models.vgg16(init_weights=False))
        assert vgg == [f"features.{i}" for i in (3, 8, 15, 22, 29)]
        for model in (torchvision.models.alexnet(), torch.nn.Conv2d(3, 3, 3)):
            with pytest.raises(LayerError, match="name the layers explicitly"):
                layers.layers_of_interest(model)
