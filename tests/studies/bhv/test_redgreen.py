import numpy as np
import pytest
import torch
from checks import refused

from ppp.errors import ParameterError
from studies.bhv.redgreen import PUBLISHED_SEED, PUBLISHED_SHIFT, RedGreen, share_in

CANVASES = (0.0, 0.5, 1, "noise", "photograph")
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def published_places(n: int, seed: int) -> np.ndarray:
    """Draw the places as the published code does: one random state, one call after another."""
    random = np.random.RandomState(seed)
    found = []
    for index in range(n):
        row = 7 if index % 2 == 0 else 23
        left = random.randint(10)
        top = row + random.randint(-4, 4)
        right, second = left, None
        while abs(left - right) < 5:
            right = random.randint(left, 28)
            second = row + random.randint(-4, 4)
        found.append((left, top, right, second))
    return np.array(found)


def painted(data: RedGreen, places, before: int = 0, side: int | None = None) -> torch.Tensor:
    """Return where the two blocks of each image are: (n, 2, S, S), left block first."""
    side = side or data.size
    inside = torch.zeros(len(places), 2, side, side, dtype=torch.bool)
    for index, place in enumerate(np.asarray(places) + before):
        for block, (x, y) in enumerate((place[:2], place[2:])):
            inside[index, block, y : y + data.block, x : x + data.block] = True
    return inside


def moved(places, shift: int) -> np.ndarray:
    """Class 0 is moved down, class 1 up."""
    places = np.array(places)
    places[0::2, 1::2] += shift
    places[1::2, 1::2] -= shift
    return places


def colours(images: torch.Tensor, inside: torch.Tensor) -> list[list[tuple[float, ...]]]:
    """Return the distinct colours of the pixels inside, image by image."""
    return [
        [tuple(c) for c in image[:, mask].T.unique(dim=0).tolist()]
        for image, mask in zip(images, inside)
    ]


# --------------------------------------------------------------------------------- places


@pytest.mark.parametrize("seed", [PUBLISHED_SEED, 0, 2**32 - 1])
def test_places_are_those_of_the_published_drawing(seed):
    np.testing.assert_array_equal(RedGreen().places(600, seed), published_places(600, seed))


def test_the_published_images_are_kept():
    assert PUBLISHED_SEED == 1988 and PUBLISHED_SHIFT == 16
    places = RedGreen().places(2000, PUBLISHED_SEED)
    left, top, right, second = places.T
    assert left.min() == 0 and left.max() == 9 and right.max() == 27
    assert (right - left).min() == 5
    for rows in (top, second):
        assert {*rows[0::2]} == set(range(3, 11)) and {*rows[1::2]} == set(range(19, 27))


def test_independent_seeds_give_other_images():
    data, seeds = RedGreen(), (PUBLISHED_SEED, PUBLISHED_SEED + 1, PUBLISHED_SEED + 2)
    first, second, third = (data.places(1000, seed) for seed in seeds)
    assert (first == second).all(1).mean() < 0.01
    assert 0 < share_in(second, first) < 0.2  # there are but so many places
    assert share_in(second, first) != share_in(third, first)
    for one, other in ((second, first), (first, third)):
        seen = [{tuple(place) for place in other[label::2].tolist()} for label in (0, 1)]
        known = sum(tuple(p) in seen[i % 2] for i, p in enumerate(one.tolist()))
        assert share_in(one, other) == known / 1000


def test_the_share_counts_a_place_in_its_own_class_alone():
    one, other = np.array([[0, 1, 9, 1], [0, 5, 9, 5]]), np.array([[0, 5, 9, 5], [0, 1, 9, 1]])
    assert share_in(one, other) == 0 and share_in(one, one) == 1
    assert share_in(one, np.concatenate([one[:1], one[:1]])) == 0.5


# --------------------------------------------------------------------------------- images


@pytest.mark.parametrize("canvas", CANVASES)
def test_the_first_images_are_the_same_however_many_there_are(canvas):
    data = RedGreen(canvas)
    many, labels = data.images(30, 5, 3, (2, 1))
    few, same_labels = data.images(7, 5, 3, (2, 1))
    assert torch.equal(many[:7], few) and torch.equal(labels[:7], same_labels)
    again, _ = data.images(30, 5, 3, (2, 1))
    assert torch.equal(many, again)
    other, _ = data.images(30, 6, 3, (2, 1))
    assert not torch.equal(many, other)


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("shift", [0, 11])
def test_blocks_are_painted_exactly_and_nothing_else(canvas, shift):
    data, n = RedGreen(canvas), 20
    images, labels = data.images(n, 1988, shift)
    assert images.shape == (n, 3, 32, 32) and images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.min() >= 0 and images.max() <= 1
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 1] * (n // 2)
    inside = painted(data, moved(published_places(n, 1988), shift))
    # read from the pixels: class 0 has the red block on the left, class 1 the green one
    left, right = (colours(images, inside[:, block]) for block in (0, 1))
    assert left == [[RED], [GREEN]] * (n // 2) and right == [[GREEN], [RED]] * (n // 2)
    outside = ~inside.any(1)
    if isinstance(canvas, str):
        for image, mask in zip(images, outside):
            values = image[:, mask]
            assert values.std() > 0.01 and len(values.unique()) > 100
    else:
        assert colours(images, outside) == [[(canvas,) * 3]] * n


@pytest.mark.parametrize("canvas", CANVASES)
def test_moved_images_have_their_canvas_where_no_block_is_or_was(canvas):
    data, n, shift = RedGreen(canvas), 20, 16
    still, labels = data.images(n, 1988)
    away, same_labels = data.images(n, 1988, shift)
    places = data.places(n, 1988)
    new, old = painted(data, moved(places, shift)).any(1), painted(data, places).any(1)
    neither = (~(new | old))[:, None].expand_as(still)
    assert torch.equal(still[neither], away[neither]) and torch.equal(labels, same_labels)
    rows = new.any(2).float() @ torch.arange(32.0) / new.any(2).sum(1)
    before = old.any(2).float() @ torch.arange(32.0) / old.any(2).sum(1)
    torch.testing.assert_close(rows - before, torch.tensor([16.0, -16.0] * (n // 2)))
    # the same pixels, columns and colours, so many rows further
    for index, by in enumerate((shift, -shift)):
        block = painted(data, places)[index].any(0)
        assert torch.equal(still[index][:, block], away[index][:, block.roll(by, 0)])
    assert RedGreen().images(4, 1988, 0)[0].equal(RedGreen().images(4, 1988)[0])


@pytest.mark.parametrize("canvas", CANVASES)
def test_surroundings_leave_the_blocks_in_their_window(canvas):
    data, n = RedGreen(canvas), 12
    plain, _ = data.images(n, 1988, 9)
    wide, _ = data.images(n, 1988, 9, (16, 9))
    assert wide.shape == (n, 3, 57, 57)
    window = wide[:, :, 16:48, 16:48]
    inside = painted(data, moved(data.places(n, 1988), 9))
    for block in (0, 1):
        mask = inside[:, block][:, None].expand_as(plain)
        assert torch.equal(window[mask], plain[mask])
    # no block is anywhere else
    around = ~painted(data, moved(data.places(n, 1988), 9), 16, 57).any(1)
    if isinstance(canvas, str):
        assert not (wide.amax(1) == 1).logical_and(wide.amin(1) == 0)[around].any()
    else:
        assert torch.equal(window, plain)
        assert colours(wide, around) == [[(canvas,) * 3]] * n


# -------------------------------------------------------------------------------- factors


@pytest.mark.parametrize("size", [20, 33])
def test_all_blocks_of_what_is_accepted_lie_on_the_canvas(size):
    accepted, n = [], 64
    for block in range(1, 9):
        for jitter in range(1, 8):
            try:
                data = RedGreen(0.5, size, block, jitter)
            except ParameterError:
                continue
            accepted.append((block, jitter))
            assert data.rows[0] == 7 and size - data.rows[1] == 9
            for shift in (0, data.largest_shift):
                images, _ = data.images(n, 1, shift)
                area = ((images.amax(1) == 1) & (images.amin(1) == 0)).sum((1, 2))
                assert area.tolist() == [2 * block**2] * n
            rows = data.places(600, 1)[:, 1::2]  # enough for the outermost ones
            free = size - block - rows[0::2].max(), rows[1::2].min()
            assert data.largest_shift == min(free)
            words = f"shift {data.largest_shift + 1} moves blocks off the canvas of {size} px"
            assert words in refused(lambda d=data: d.images(2, 1, d.largest_shift + 1))
    # class 0 begins in row 7, class 1 nine rows above the end
    fit = {(b, j) for b in range(1, 9) for j in range(1, min(7, 10 - b) + 1) if (size - b) // 2 > b}
    assert set(accepted) == fit


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"block": 8}, "blocks of 8 px"),
        ({"block": 16, "jitter": 1}, "blocks of 16 px"),
        ({"size": 8}, "canvas of 8 px"),
        ({"jitter": 9}, "jittered by 9 rows"),
        ({"canvas": "nois"}, "unknown canvas 'nois'; did you mean 'noise'?"),
        ({"canvas": 1.5}, "canvas 1.5; expected a value from 0 to 1"),
        ({"canvas": True}, "canvas True"),
        ({"canvas": float("nan")}, "canvas nan"),
        ({"jitter": 0}, "jitter = 0; expected a whole number of at least 1"),
        ({"jitter": 28 / 6}, "jitter = 4.66"),
        ({"block": True}, "block = True"),
        ({"size": "32"}, "size = '32'"),
    ],
)
def test_factors_that_cannot_be_are_refused(factors, words):
    assert words in refused(RedGreen, **factors)


@pytest.mark.parametrize("shift", [19, -1, True, 16.0, "16", None])
def test_shifts_that_cannot_be_are_refused(shift):
    for call in (RedGreen().check_shift, lambda s: RedGreen().images(2, 1, s)):
        message = refused(lambda call=call: call(shift))
        assert f"shift {shift!r}" in message and "at most 18" in message


def test_a_canvas_larger_than_a_photograph_is_refused():
    data = RedGreen("photograph", size=400)
    assert "canvas of 400 px" in refused(data.images, 40, 1)


def test_numbers_of_images_and_seeds_that_cannot_be_are_refused():
    for call, words in (
        (lambda: RedGreen().images(0, 1), "n = 0"),
        (lambda: RedGreen().images(2, -1), "seed = -1"),
        (lambda: RedGreen().images(2, 2**32), "seed = 4294967296"),
        (lambda: RedGreen().images(2, 1, surroundings=(-1, 0)), "surroundings = -1"),
        (lambda: RedGreen(size=16, block=2), "do not fit a canvas of 16 px"),  # both rows are 7
    ):
        with pytest.raises(ParameterError, match=words):
            call()
