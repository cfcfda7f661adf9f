"""How wrong a guess is, and how wide surroundings must be, against direct computations."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import ppp
from ppp.errors import MarginError, PictureError, PPPError
from studies import results
from studies.networks import load_network
from studies.padding import surroundings
from studies.pictures import plane


def test_guess_error_equals_a_direct_computation():
    [scene] = plane.scenes(1, 40, 40, seed=3)
    frame = surroundings.guess_error(
        [scene], ["replicate"], size=20, amount=2, per_picture=1, seed=5
    )
    draw = np.random.default_rng([5, 0])
    top, left = (int(draw.integers(0, 17, 1)[0]) for _ in range(2))
    pixels = scene.pixels()
    pixels = (pixels - pixels.mean((1, 2), keepdim=True)) / pixels.std()
    truth = pixels[:, top : top + 24, left : left + 24].numpy()
    guess = np.pad(truth[:, 2:-2, 2:-2], ((0, 0), (2, 2), (2, 2)), mode="edge")
    error = np.abs(guess - truth).mean(0)
    ring = np.ones((24, 24), bool)
    ring[1:-1, 1:-1] = False
    inner = np.zeros_like(ring)
    inner[1:-1, 1:-1] = True
    inner[2:-2, 2:-2] = False
    expected = [error[inner].mean(), error[ring].mean()]
    assert np.allclose(frame["error"], expected, atol=1e-6)


def test_guess_error_draws_from_its_seed_alone():
    frames = [
        surroundings.guess_error(
            plane.scenes(2, 48, 48, seed=0), ["randn"], size=24, amount=3, per_picture=2, seed=1
        )
        for _ in range(2)
    ]
    pd.testing.assert_frame_equal(*frames)


def test_guess_error_refuses_a_small_picture_and_says_the_size_needed():
    with pytest.raises(PictureError, match=r"'disc-0' is 30 x 30 px.*needs 36 x 36"):
        surroundings.guess_error(
            plane.scenes(1, 30, 30, seed=0), ["zeros"], size=32, amount=2, per_picture=1, seed=0
        )


def test_mean_interval_is_students_t():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    row = surroundings.mean_interval(
        pd.DataFrame({"scheme": "zeros", "error": values}), ["scheme"], "error"
    ).iloc[0]
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (row["low"], row["high"], row["n"]) == pytest.approx((low, high, 4))


def test_one_row_has_a_mean_and_no_interval():
    row = surroundings.mean_interval(
        pd.DataFrame({"scheme": ["zeros"], "error": [2.0]}), ["scheme"], "error"
    ).iloc[0]
    assert row["error"] == 2.0
    assert np.isnan(row["low"])


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
    with pytest.raises(MarginError, match="less than 1 px"):
        surroundings.width_error(net, reach, torch.rand(3, 8, 8), 0, 0, [0])


def test_numbers_are_written_whole_or_not_at_all(tmp_path):
    results.save_numbers(tmp_path, {"n": np.int64(3), "error": np.float32(0.5)})
    assert json.loads((tmp_path / "numbers.json").read_text()) == {"n": 3, "error": 0.5}
    with pytest.raises(PPPError, match="'error' is nan"):
        results.save_numbers(tmp_path, {"n": 4, "error": float("nan")})
    assert json.loads((tmp_path / "numbers.json").read_text())["n"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


def test_a_footer_names_versions_device_and_commit():
    facts = results.footer(n=8)
    assert facts["n"] == 8
    assert f"torch {torch.__version__.split('+')[0]}" in facts["versions"]
    assert {"python", "device", "commit"} <= facts.keys()
