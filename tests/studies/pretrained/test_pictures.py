"""Which photographs are measured, which are set apart, and which layers they serve."""

from types import SimpleNamespace

import pytest

import ppp
from ppp.errors import MarginError
from studies.networks import load_network
from studies.pretrained import pictures


@pytest.fixture
def few(monkeypatch):
    """A set of two large and two small photographs in the place of urban100-large."""
    sets = {name: [SimpleNamespace(name=f"{name}{i}") for i in range(2)] for name in ("", "debian")}
    large = [SimpleNamespace(name=f"urban{side}", side=side) for side in (736, 796, 824, 1024)]

    def photographs(name="", min_size=0):
        return sets.get(name) or [photo for photo in large if photo.side >= min_size]

    monkeypatch.setattr(pictures, "photographs", photographs)
    for cached in (pictures.apart, pictures.measured):
        cached.cache_clear()
    yield
    for cached in (pictures.apart, pictures.measured):
        cached.cache_clear()


def test_what_is_set_apart_is_not_measured(few):
    apart, measured = ({p.name for p in part()} for part in (pictures.apart, pictures.measured))
    assert apart == {"urban824", "urban1024"}
    assert measured == {"0", "1", "debian0", "debian1", "urban736", "urban796"}


def sized(height, width):
    return SimpleNamespace(height=height, width=width)


def test_pictures_serve_the_layers_whose_surroundings_they_hold():
    network = load_network("efficientnet-lite0", "random")
    reach = ppp.coverage(network.model, list(network.layers), network.window)
    groups = pictures.by_layers(
        [sized(288, 300), sized(1088, 1088), sized(576, 1100), sized(100, 100)], reach, network
    )
    assert {len(layers): len(group) for layers, group in groups.items()} == {5: 1, 4: 1, 2: 1}
    with pytest.raises(MarginError, match=r"layer 'blocks\.0' .* needs 288 x 288 px, and the"):
        pictures.by_layers([sized(100, 1000)], reach, network)


def test_photographs_are_reduced_to_the_size_of_their_network_and_never_enlarged():
    photos = [SimpleNamespace(name="a", height=1000, width=2000)]
    assert pictures.reduced(photos, "hed-vgg16")[0].width == 960
    assert pictures.reduced(photos, "efficientnet-lite1")[0].height == 1000
    assert pictures.reduced(photos, "resnet18")[0].height == 1000
