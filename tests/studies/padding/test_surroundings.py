"""How wrong a guess is, and how wide surroundings must be, against direct computations."""

import numpy as np
import pandas as pd
import torch
from checks import refused

import ppp
from ppp.errors import MarginError, PictureError
from studies.networks import load_network
from studies.padding import surroundings
from studies.pictures import plane


def test_guess_error_equals_a_direct_computation():
    [scene] = plane.scenes(1, 40, 40, seed=3)
    how = {"size": 20, "amount": 2, "per_picture": 1, "seed": 5}
    frame = surroundings.guess_error([scene], ["replicate"], **how)
    draw = np.random.default_rng([5, 0])
    top, left = (int(draw.integers(0, 17, 1)[0]) for _ in range(2))
    pixels = scene.pixels()
    pixels = (pixels - pixels.mean((1, 2), keepdim=True)) / pixels.std()
    truth = pixels[:, top : top + 24, left : left + 24].numpy()
    guess = np.pad(truth[:, 2:-2, 2:-2], ((0, 0), (2, 2), (2, 2)), mode="edge")
    error = np.abs(guess - truth).mean(0)
    ring = np.pad(np.zeros((22, 22), bool), 1, constant_values=True)
    inner = np.pad(np.pad(np.zeros((20, 20), bool), 1, constant_values=True), 1)
    expected = [error[inner].mean(), error[ring].mean()]
    assert np.allclose(frame["error"], expected, atol=1e-6)


def test_guess_error_draws_from_its_seed_alone():
    how = {"size": 24, "amount": 3, "per_picture": 2, "seed": 1}
    pictures = plane.scenes(2, 48, 48, seed=0)
    frames = [surroundings.guess_error(pictures, ["randn"], **how) for _ in range(2)]
    pd.testing.assert_frame_equal(*frames)


def test_guess_error_refuses_a_small_picture_and_says_the_size_needed():
    options = {"size": 32, "amount": 2, "per_picture": 1, "seed": 0, "error": PictureError}
    message = refused(
        surroundings.guess_error, plane.scenes(1, 30, 30, seed=0), ["zeros"], **options
    )
    assert "'disc-0' is 30 x 30 px" in message and "36 x 36" in message


def test_surroundings_as_wide_as_the_margin_are_exact_and_narrower_ones_are_not():
    net = load_network("plane-resnet", "trained")
    layers = ["layer1", "layer2", "layer3"]
    reach = ppp.coverage(net.model, layers, 48)
    stride = max(reach.stride)
    around = -(-max(reach.margin) // stride) * stride
    scene = plane.render(4, "star", 0, 0, 48 + 2 * around, 48 + 2 * around)
    widths = range(0, around + 1, stride)
    frame = surroundings.width_error(
        net.model, reach, net.prepare(scene), around, around, list(widths)
    )
    for layer, rows in frame.groupby("layer"):
        margin = max(reach[layer].margin)
        wide = rows[rows["width"] >= margin]["error"]
        assert len(wide) and (wide < 1e-5).all()
        assert (rows[rows["width"] < margin - 2 * stride]["error"] > 1e-3).all()
    assert (frame[frame["width"] == 0]["error"] > 0.1).all()


def test_width_error_refuses_a_picture_without_the_margin():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    reach = ppp.coverage(net, ["0"], 8)
    picture = torch.rand(3, 8, 8)
    refused(surroundings.width_error, net, reach, picture, 0, 0, [0], error=MarginError)
