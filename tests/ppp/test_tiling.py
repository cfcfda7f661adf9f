import math

import pytest
import torch
from checks import refused
from torch import nn
from toys import network, noise

import ppp
from ppp.errors import GridError, MarginError, PPPError

Sequential, Conv = nn.Sequential, nn.Conv2d

NETWORKS = {
    "strides 2 and 4": (network, "6"),
    "stride 3": (lambda: Sequential(Conv(3, 4, 5, 3, 2), Conv(4, 4, 3, padding=1)), "1"),
    "twice as fine": (lambda: Sequential(Conv(3, 8, 3, padding=1), nn.PixelShuffle(2)), "1"),
    "no padding": (lambda: Sequential(Conv(3, 4, 5), Conv(4, 4, 3, 2)), "1"),
    "enlarged": (lambda: Sequential(Conv(3, 4, 3, 4, 1), nn.Upsample(scale_factor=4)), "1"),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(61, 150), (128, 97)])
def test_tiles_give_what_the_whole_picture_gives(name, size):
    make, layer = NETWORKS[name]
    model, x = make().eval(), noise(2, 3, *size)
    whole = ppp.extract(model, x, [layer])[layer]
    pixel = ppp.audit(model, 224).peak / 224**2
    for side in (48, 64, 1000):
        found = ppp.tiles(model, layer, math.ceil(pixel * side**2))
        assert max(found.tile) <= side and found.difference < 1e-5
        runs = []
        hook = model[0].register_forward_pre_hook(
            lambda _m, given, runs=runs: runs.append(given[0].shape[2:])
        )
        torch.testing.assert_close(found.features(model, x), whole, rtol=1e-4, atol=1e-5)
        hook.remove()
        assert all(h <= found.tile[0] and w <= found.tile[1] for h, w in runs)
        assert (len(runs) == 1) == (side == 1000)


def test_the_recipe_is_the_margin_and_the_stride():
    model = Sequential(Conv(3, 4, 3, 2, 1), Conv(4, 4, 3, padding=1)).eval()
    found = ppp.tiles(model, "1", 2**20)
    assert (found.halo, found.step) == ((4, 2, 4, 2), (2, 2))
    assert found.memory <= 2**20 < found.memory * (found.tile[0] + 2) ** 2 / found.tile[0] ** 2
    assert "halo (left, right, top, bottom) (4, 2, 4, 2) px" in str(found)


def test_what_has_no_seamless_tiles_is_refused():
    model = Sequential(Conv(3, 4, 3, padding=1), nn.InstanceNorm2d(4)).eval()
    assert "'1'" in refused(ppp.tiles, model, "1", 2**20, error=MarginError)
    message = refused(ppp.tiles, model, "0", 100, error=PPPError)
    assert "memory of 100 bytes is too small" in message and "3 x 3 px" in message
    for memory in (0, -1, 1.5, "1G"):
        assert "expected bytes" in refused(ppp.tiles, model, "0", memory, error=PPPError)
    with pytest.raises(GridError, match="or by chance"):
        ppp.tiles(ppp.with_padding(model, "randn"), "0", 2**20)
