"""The page's network beside PyTorch's, on the same rounded weights."""

import numpy as np
import pytest
import torch
from scipy import stats

import ppp
from companion.laboratory import networks
from companion.laboratory.node import run
from studies.networks import load_network, reach_of, rebuilt
from studies.networks.names import PADDINGS
from studies.networks.small import PLANE_WINDOW
from studies.patterns import design
from studies.pictures import plane

TOLERANCE = 1e-4  # of the layer's standard deviation, over its cells

ALL_LAYERS = """
const network = newNetwork(given.description, halves(bytesOf(given.weights)));
return given.cases.map(({ input, height, width, scheme, draws }) => {
  const maps = newMaps(network, height, width), map = maps[0];
  for (let c = 0, i = 0; c < map.channels; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        map.cells[c * map.plane + (map.pad + y) * map.row + map.pad + x] = input[i];
      }
    }
  }
  let drawn = 0;
  run(network, maps, scheme, () => draws[drawn++]);
  const outputs = maps.slice(1).map((one) => cutOut(one, 0, 0, one.height, one.width));
  return {
    outputs: outputs.map(({ cells }) => cells), scores: scores(network, outputs.at(-1)),
    drawn, shapes: outputs.map(({ channels, height, width }) => [channels, height, width]),
  };
});
"""


def reference(model, description, x):
    """Return the output of every layer, in order, and the scores."""
    seen, handles = {}, []
    modules = dict(model.named_modules())
    for layer in description["layers"]:
        # A layer that adds a shortcut is the last of its block, whose output is the sum's ReLU.
        whole = layer["module"].rpartition(".")[0] if "added" in layer else layer["module"]

        def keep(_module, _inputs, output, name=layer["module"], relu=layer["relu"]):
            seen[name] = (output.relu() if relu else output).clone()

        handles.append(modules[whole].register_forward_hook(keep))
    scores = model(x)
    for handle in handles:
        handle.remove()
    return [seen[layer["module"]][0].numpy() for layer in description["layers"]], scores[0].numpy()


def pictures(side):
    """Return inputs of a kind each: a scene, a photograph's extremes, nothing, huge values."""
    height, width = side
    draw = torch.Generator().manual_seed(height * width)
    scene = torch.randn(1, 3, height, width, generator=draw)
    return {
        "noise": scene,
        "black and white": (scene > 0).float() * 4 - 2,
        "zeros": torch.zeros(1, 3, height, width),
        "huge": scene * 1e15,
    }


def compared(model, schemes, sizes, monkeypatch):
    """Run every case in both; return the largest difference of each layer, in its sigma."""
    description = networks.described(model)
    cases, expected = [], []
    for scheme in schemes:
        padded = ppp.with_padding(model, scheme) if scheme != "zeros" else model
        for side in sizes:
            for kind, x in pictures(side).items():
                draws, randn = [], torch.randn
                with monkeypatch.context() as patch:

                    def kept(*shape, draws=draws, randn=randn, **options):
                        drawn = randn(*shape, **options)
                        draws.append(drawn.flatten())
                        return drawn

                    patch.setattr(torch, "randn", kept)
                    torch.manual_seed(0)
                    expected.append(((scheme, side, kind), *reference(padded, description, x)))
                flat = torch.cat(draws).numpy() if draws else np.zeros(0, np.float32)
                case = {"input": x.flatten().numpy(), "draws": flat, "scheme": scheme}
                cases.append(case | {"height": side[0], "width": side[1]})
    given = {"description": description, "weights": networks.weights(model), "cases": cases}
    largest = {}
    for case, result, (name, maps, scores) in zip(
        cases, run(ALL_LAYERS, **given), expected, strict=True
    ):
        assert result["drawn"] == len(case["draws"]), name
        for layer, ours, theirs in zip(description["layers"], result["outputs"], maps, strict=True):
            assert ours.size == theirs.size and np.isfinite(theirs).all(), name
            sigma = theirs.std() or 1.0
            found = float(np.abs(ours.reshape(theirs.shape) - theirs).max() / sigma)
            largest.setdefault(name[2], {}).setdefault(layer["module"], []).append(found)
            assert found <= TOLERANCE, (name, layer["module"], found)
        spread = np.abs(scores).max() or 1.0
        assert np.abs(np.array(result["scores"]) - scores).max() <= TOLERANCE * spread, name
    return largest


@pytest.mark.parametrize("scheme", PADDINGS)
def test_every_layer_is_pytorch_s(scheme, monkeypatch):
    """On even and odd sides; noise, extremes, nothing, huge values; randn with the same draws."""
    model = networks.residual("zeros")
    sizes = [(PLANE_WINDOW, PLANE_WINDOW), (97, 63), (50, 33)]
    for kind, layers in compared(model, [scheme], sizes, monkeypatch).items():
        worst = max(layers, key=lambda name: max(layers[name]))
        print(f"{scheme}, {kind}: {max(layers[worst]):.1e} sigma at {worst}")


@pytest.mark.parametrize("padding", networks.TRAINED[1:])
def test_every_network_of_the_page_is_pytorch_s(padding, monkeypatch):
    scheme = padding if padding in PADDINGS else "zeros"
    compared(networks.residual(padding), [scheme], [(PLANE_WINDOW,) * 2], monkeypatch)


@pytest.mark.parametrize("canvas", networks.CANVASES)
def test_full_convolution_is_pytorch_s(canvas, monkeypatch):
    compared(networks.full_convolution(canvas), ["zeros"], [(32, 32)], monkeypatch)


@pytest.mark.parametrize("padding", networks.TRAINED)
def test_rounding_changes_features_by_less_than_a_hundredth_of_their_scale(padding):
    """The drift against the weights in float32, which the page's numbers carry."""
    exact = rebuilt(load_network(f"plane-resnet-{padding}", "trained").model, "zeros")
    layers = list(reach_of("resnet"))
    x = design.normal(scenes(4))
    both = [ppp.extract(model, x, layers) for model in (exact, networks.residual(padding))]
    for layer in layers:
        kept, rounded = (features[layer] for features in both)
        drift = (rounded - kept).square().mean().sqrt() / kept.std()
        print(f"{padding}, {layer}: drift {drift:.1e} sigma")
        assert 0 < drift < 1e-2


def scenes(n):
    return torch.stack([scene.pixels() for scene in plane.scenes(n, 96, 96, seed=1 << 44)])


def test_a_size_too_small_for_a_scheme_is_refused():
    body = (
        "try { fillBorder(newMap(1, 2, 9, 2), 'reflect') } catch (error) { return error.message }"
    )
    assert "2 x 9" in run(body)


def test_draws_are_normal_and_a_seed_s_own():
    body = """
    const draws = (seed) => { const draw = normalDraws(seed);
      return Float64Array.from({ length: 20000 }, draw); };
    return [draws(1), draws(1), draws(2)];
    """
    first, again, other = run(body)
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.03
    assert abs(first.mean()) < 0.03 and abs(first.std() - 1) < 0.02
    assert stats.kstest(first, "norm").pvalue > 0.001
