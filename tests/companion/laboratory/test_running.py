"""Optimal features, the running mean and its measures beside `ppp.measure` on the same windows."""

import numpy as np
import pytest
import torch

import ppp
from companion.laboratory import networks
from companion.laboratory.node import run
from ppp.errors import MarginError
from studies.networks import reach_of
from studies.patterns import design

SIZES = {"wide": (208, 272), "high": (256, 192), "square": (224, 224), "least": (192, 208)}
LAYERS = ("relu", "layer1", "layer2", "layer3", "layer4")
SCHEMES = ("zeros", "reflect", "replicate", "circular")

WINDOWS = """
const network = newNetwork(given.description, halves(bytesOf(given.weights)));
const passes = new Map(given.pictures.map((picture) => {
  const pass = newPass(network, given.reach, picture);
  const shares = [0];
  while (shares.at(-1) < 1) shares.push(pass.progress());
  if (shares.some((share, i) => i && share <= shares[i - 1])) throw new Error("no progress");
  pass.progress();
  return [picture.name, pass];
}));
const picture = Object.fromEntries(given.pictures.map((one) => [one.name, one]));
"""


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(3)
    smooth = {}
    for name, (height, width) in SIZES.items():
        coarse = torch.from_numpy(draw.random((1, 3, height // 8, width // 8), dtype=np.float32))
        fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        smooth[name] = (fine.clamp(0, 1) * 255).round().to(torch.uint8)
    return smooth


@pytest.fixture(scope="module")
def model():
    return networks.residual("zeros")


@pytest.fixture(scope="module")
def windows(pictures):
    scenes = {name: design.normal(pixels / 255) for name, pixels in pictures.items()}
    return list(ppp.cut_windows(scenes, 96, reach_of("resnet"), per_picture=3, seed=0))


def given(model, pictures):
    return {
        "description": networks.described(model),
        "weights": networks.weights(model),
        "reach": networks.reach(reach_of("resnet")),
        "pictures": [
            {"name": name, "height": p.shape[1], "width": p.shape[2]}
            | {"rgb": p.permute(1, 2, 0).numpy()}
            for name, p in pictures.items()
        ],
    }


def test_windows_may_lie_where_the_library_cuts_them(model, pictures):
    sizes = [(208, 272), (256, 192), (207, 303), (191, 400), (304, 448)]
    body = "return given.sizes.map(([height, width]) => places(given.reach, height, width));"
    found = run(body, sizes=sizes, reach=networks.reach(reach_of("resnet")))
    for (height, width), places in zip(sizes, found):
        count = len(places["tops"]) * len(places["lefts"])
        scene = {"one": torch.zeros(3, height, width)}
        try:
            (picture,) = ppp.cut_windows(scene, 96, reach_of("resnet"), per_picture=10**6, seed=0)
        except MarginError:
            assert not count
        else:
            assert set(picture.tops) == set(places["tops"])
            assert set(picture.lefts) == set(places["lefts"]) and len(picture.tops) == count


def test_optimal_features_are_the_library_s_and_others_are_refused(model, pictures, windows):
    body = (
        WINDOWS
        + """
    const refused = given.wrong.map(([name, layer, top, left]) => {
      try { surrounded(passes.get(name), layer, top, left); return ""; }
      catch (error) { return error.constructor.name; }
    });
    const maps = ([name, top, left]) =>
      given.reach.layers.map((layer) => surrounded(passes.get(name), layer.name, top, left).cells);
    return { refused, maps: given.places.map(maps) };
    """
    )
    places = [[p.name, int(p.tops[0]), int(p.lefts[0])] for p in windows]
    wrong = [["wide", "layer4", 32, 48], ["wide", "layer4", 56, 48], ["wide", "layer4", 80, 48]]
    wrong += [["wide", "layer4", 48, 144], ["wide", "relu", 1, 2]]
    found = run(body, places=places, wrong=wrong, **given(model, pictures))
    assert found["refused"] == ["RangeError"] * len(wrong)
    for picture, maps in zip(windows, found["maps"]):
        offsets = picture.tops[:1], picture.lefts[:1]
        expected = ppp.optimal(model, picture.pixels, *offsets, reach_of("resnet")).maps
        for layer, ours in zip(LAYERS, maps, strict=True):
            theirs = expected[layer][0].numpy()
            assert np.abs(ours.reshape(theirs.shape) - theirs).max() <= 1e-4 * theirs.std()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_running_measures_are_those_of_measure(model, pictures, windows, scheme):
    body = (
        WINDOWS
        + """
    const running = newRunning(network, given.reach, given.scheme, 1);
    for (const [name, top, left] of given.places) {
      running.add(passes.get(name), name, picture[name], top, left);
    }
    return given.reach.layers.map((layer) => ({
      ...running.state(layer.name, given.signs), own: running.state(layer.name).maeFloor,
      r: correlation(running.state(layer.name).mean, given.patterns[layer.name], layer.influence),
    }));
    """
    )
    measured = ppp.measure(model, ppp.Windows(windows, 96), LAYERS, scheme)
    places = [[p.name, int(y), int(x)] for p in windows for y, x in zip(p.tops, p.lefts)]
    # The signs that the library draws for so many groups.
    half = np.tile(np.resize([-1.0, 1.0], len(SIZES)), (8, 1))
    signs = np.random.default_rng(0).permuted(half, axis=1).tolist()
    draw = np.random.default_rng(1)
    patterns = {
        layer: draw.normal(size=measured[layer].pattern.shape).astype(np.float32)
        for layer in LAYERS
    }
    values = {"places": places, "scheme": scheme, "signs": signs, "patterns": patterns}
    for state in run(body, **values, **given(model, pictures)):
        layer = state["layer"]
        theirs = measured[layer]
        assert state["n"] == len(places) and state["pictures"] == len(SIZES)
        assert state["mae"] == pytest.approx(theirs.mae.value, rel=1e-4), layer
        assert state["maeFloor"] == pytest.approx(theirs.mae_floor, rel=1e-4), layer
        assert state["sigma"] == pytest.approx(theirs.sigma, rel=1e-5), layer
        assert state["own"] == pytest.approx(theirs.mae_floor, rel=0.2), layer
        assert state["largestClean"] == 0
        mean = state["mean"].reshape(theirs.pattern.shape)
        assert np.abs(mean - theirs.pattern).max() <= 1e-4 * theirs.sigma, layer
        pair = [map_[:, theirs.influence].ravel() for map_ in (theirs.pattern, patterns[layer])]
        assert state["r"] == pytest.approx(np.corrcoef(pair)[0, 1], abs=1e-4), layer


def test_the_noise_floor_of_one_group_is_the_analytic_one():
    body = """
    const moments = newMoments(3);
    for (const sample of [[1, 2, 0], [3, 2, 0], [8, 5, 0]]) update(moments, sample);
    return [noiseFloor([moments]), moments.mean, balanced(4), balanced(3), balanced(2)];
    """
    floor, mean, *rows = run(body)
    variance = np.array([13, 3, 0])
    assert np.allclose(floor, np.sqrt(variance / 3 * 2 / np.pi))
    assert mean.tolist() == [4, 3, 0]
    assert [len(one) for one in rows] == [3, 3, 1]
    assert all(abs(sum(row)) <= len(row) % 2 for one in rows for row in one)


def test_windows_are_drawn_once_each_picture_after_picture():
    body = """
    const pictures = [["a", 224, 208], ["b", 192, 256]].map(
      ([name, height, width]) => ({ name, height, width }));
    const draw = (seed) => [...drawnWindows(given.reach, pictures, seed)];
    return [draw(1), draw(1), draw(2)];
    """
    first, again, other = run(body, reach=networks.reach(reach_of("resnet")))
    assert first == again != other
    names = [one["name"] for one in first]
    assert names[:6] == ["a", "b"] * 3
    assert len({tuple(one.values()) for one in first}) == len(first) == 3 * 2 + 5


def test_the_nearest_cell_is_found_in_units_of_the_channels_spread():
    # Two channels, three cells; the second channel is noisy and must not decide.
    body = (
        "return [nearest(given.v, given.p, [1, 100], 3), nearest(given.v, given.p, [1, 0.1], 3)];"
    )
    pattern, values = np.array([[0, 1, 2], [0, 5, 9]], "f4"), np.array([1.9, 0], "f4")
    assert run(body, v=values, p=pattern) == [2, 0]
