import numpy as np
import pytest
import torch
from checks import refused
from hypothesis import given, settings, strategies as st

from ppp.errors import PictureError
from studies.pictures.plane import BLOCK, SHAPES, render, render_windows

coordinate = st.one_of(st.integers(-300, 300), st.integers(-(2**40), 2**40))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    shape=st.sampled_from(SHAPES),
    top=coordinate,
    left=coordinate,
    border=st.tuples(*[st.integers(0, 150)] * 4),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_a_cut_is_a_render_wherever_it_lies(seed, shape, top, left, border, size):
    above, below, before, after = border
    height, width = size
    wide = render(
        seed, shape, top - above, left - before, above + height + below, before + width + after
    )
    small = render(seed, shape, top, left, height, width)
    assert torch.equal(wide[:, above : above + height, before : before + width], small)


def test_cut_is_exact_far_into_a_large_sheet_of_every_shape():
    for shape in SHAPES:
        sheet = render(11, shape, -200, -333, 400, 500)
        tops, lefts = [0, 37, 304], [404, 1, 200]
        windows = torch.stack([sheet[:, y : y + 96, x : x + 96] for y, x in zip(tops, lefts)])
        again = render_windows(
            [11] * 3, [shape] * 3, [t - 200 for t in tops], [x - 333 for x in lefts], 96
        )
        assert torch.equal(windows, again)


def test_batch_of_mixed_shapes_is_the_same_as_one_by_one():
    seeds, shapes = [5, 5, 9, 2**62, -1], ["bar", 0, "ring", "star", 7]
    tops, lefts = [0, -64, 63, -1, 10**9], [3, 0, 64, -(10**9), 0]
    batch = render_windows(seeds, shapes, tops, lefts, 40)
    for i, (seed, shape, top, left) in enumerate(zip(seeds, shapes, tops, lefts)):
        assert torch.equal(batch[i], render(seed, shape, top, left, 40, 40))
    assert batch.dtype == torch.float32 and batch.shape == (5, 3, 40, 40)


def test_no_windows_give_an_empty_batch():
    assert render_windows([], [], [], [], 8).shape == (0, 3, 8, 8)


def test_scenes_differ_by_seed_and_by_shape():
    scenes = [render(seed, shape, 0, 0, 48, 48) for seed in (0, 1, -1) for shape in SHAPES]
    assert torch.equal(scenes[0], render(0, SHAPES[0], 0, 0, 48, 48))
    distinct = {scene.numpy().tobytes() for scene in scenes}
    assert len(distinct) == len(scenes)


def test_a_scene_is_pinned_across_versions():
    # Shipped networks were trained on these very pixels. Last bits may differ elsewhere.
    pixels = render(1, "crescent", -20, 7, 3, 3)[:, 1, 1]
    torch.testing.assert_close(
        pixels, torch.tensor([0.531358, 0.194316, 0.409568]), atol=1e-5, rtol=0
    )


def test_pixels_are_finite_in_range_and_varied():
    pixels = render_windows(range(16), [k % 8 for k in range(16)], [0] * 16, [0] * 16, 96)
    assert bool(pixels.isfinite().all())
    assert float(pixels.min()) >= 0 and float(pixels.max()) <= 1
    assert float(pixels.std()) > 0.15
    assert float((pixels == 0).float().mean()) < 0.05


@pytest.fixture(scope="module")
def many():
    """One pixel row of 2 blocks in each of many scenes: (scenes, 2, BLOCK), grey."""
    n = 1500
    seeds = range(n)
    shapes = [k % len(SHAPES) for k in seeds]
    return render_windows(seeds, shapes, [-5] * n, [-BLOCK] * n, 2 * BLOCK).mean(1).numpy()


def test_no_seams_mean_and_variance_do_not_know_the_block(many):
    n = len(many)
    for values in (many, (many - many.mean()) ** 2):
        flat = values.reshape(n, -1, 2 * BLOCK)
        for columns in (flat.mean(1), values.mean(2)):  # by column, by row
            spread = columns.std(0, ddof=1) / np.sqrt(n)
            score = (columns.mean(0) - columns.mean()) / spread
            assert np.abs(score).max() < 4.5  # 128 correlated normal scores


def test_no_seams_between_neighbours(many):
    # Differences across a block's edge are like any other difference of neighbours.
    step = np.abs(np.diff(many, axis=2)).mean(1)  # (n, 2 * BLOCK - 1)
    across = step[:, BLOCK - 1]
    score = (across - step.mean(1)).mean() / (across.std(ddof=1) / np.sqrt(len(step)))
    assert abs(score) < 4


def test_all_shapes_have_the_same_law_of_colour():
    n = 120
    means = []
    for shape in SHAPES:
        pixels = render_windows(range(n), [shape] * n, [0] * n, [0] * n, 96)
        means.append(pixels.mean((1, 2, 3)).numpy())
    means = np.stack(means)
    grand, error = means.mean(), means.std(1, ddof=1) / np.sqrt(n)
    assert np.abs((means.mean(1) - grand) / error).max() < 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "stra", 0, 0, 8, 8), "did you mean 'star'?"),
        ((0, 8, 0, 0, 8, 8), "0 to 7"),
        ((0, None, 0, 0, 8, 8), "unknown leaf shape"),
        ((0, "disc", 0, 0, 0, 8), "0 x 8 px"),
        ((0, "disc", 0, 0, 8, -1), "8 x -1 px"),
        ((0, "disc", 0.5, 0, 8, 8), "whole"),
        ((2**63, "disc", 0, 0, 8, 8), "64-bit"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, words):
    assert words in refused(render, *arguments, error=PictureError)


def test_unequal_columns_are_refused():
    message = refused(render_windows, [1, 2], ["disc"], [0], [0], 8, error=PictureError)
    assert "2 seeds, 1 shapes" in message
