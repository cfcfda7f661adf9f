import numpy as np
import pytest
import torch
from checks import refused
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import nn

import ppp
from ppp.errors import MarginError, PictureError, PPPError
from ppp.extraction import gather
from ppp.influence import Coverage, LayerCoverage
from ppp.windows import Picture, Windows

SIZE = 16


@pytest.fixture(scope="module")
def reach() -> Coverage:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, (1, 0))
    )
    return ppp.coverage(net.eval(), ["0", "2", "3"], SIZE)


def scenes(count: int = 3, height: int = 80, width: int = 96) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {f"scene {i}": torch.rand(3, height, width, generator=draw) for i in range(count)}


def cut(reach, pictures=None, size=SIZE, **options) -> Windows:
    options = {"per_picture": 12, "seed": 0} | options
    return ppp.cut_windows(scenes() if pictures is None else pictures, size, reach, **options)


def places(windows) -> list[tuple[str, int, int]]:
    return [(p.name, int(top), int(left)) for p in windows for top, left in zip(p.tops, p.lefts)]


def test_windows_are_aligned_and_have_their_surroundings(reach):
    windows = cut(reach, per_picture=1000)  # every position there is
    left, right, top, bottom = reach.margin
    for _, y, x in places(windows):
        assert y % reach.stride[0] == 0 and x % reach.stride[1] == 0
        assert y >= top and y + SIZE + bottom <= 80
        assert x >= left and x + SIZE + right <= 96
    for picture in windows:
        for layer in reach.values():
            cells = tuple(s // layer.stride[i] for i, s in enumerate((80, 96)))
            layer.certify(cells, picture.tops, picture.lefts)  # does not raise


def test_windows_are_distinct_and_limited_per_picture(reach):
    windows = cut(reach)
    found = places(windows)
    assert len(windows) == len(found) == len(set(found)) == 36
    assert [len(p.tops) for p in windows] == [12, 12, 12]
    every = places(cut(reach, per_picture=10**6))
    assert len(every) == len(set(every)) and set(found) <= set(every)


def test_windows_follow_the_seed(reach):
    assert places(cut(reach)) == places(cut(reach))
    assert places(cut(reach)) != places(cut(reach, seed=1))
    windows = cut(reach)
    assert places(windows) == places(windows)  # a second pass sees the same
    first, second, _ = windows
    assert first.tops.tolist() != second.tops.tolist()


def test_a_picture_keeps_its_windows_when_others_follow(reach):
    few, many = cut(reach, scenes(2)), cut(reach, scenes(5))
    assert places(many)[:24] == places(few)


def test_interleaving_visits_all_pictures_early_and_keeps_the_windows(reach):
    plain, mixed = cut(reach), cut(reach, interleave=True)
    assert len(mixed) == len(plain) and sorted(places(mixed)) == sorted(places(plain))
    assert [len(p.tops) for p in mixed] == [1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4]
    assert {name for name, _, _ in places(mixed)[:3]} == set(scenes())


def test_too_small_a_picture_is_refused_with_the_size_that_works(reach):
    height, width = ppp.size_needed(SIZE, reach)
    stride = reach.stride
    with pytest.raises(MarginError) as caught:
        cut(reach, scenes(1, 20, 20))
    message = str(caught.value)
    assert f"needs {height} x {width}" in message and "'scene 0' is 20 x 20" in message
    assert "\n" not in message
    assert len(cut(reach, scenes(1, height, width))) >= 1
    for smaller in ((height - stride[0], width), (height, width - stride[1]), (height - 1, width)):
        with pytest.raises(MarginError, match=f"needs {height} x {width}"):
            cut(reach, scenes(1, *smaller))


def test_the_needed_size_indeed_measures(reach):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)).eval()
    for size in (15, 16, 17, (18, 21)):
        found = ppp.coverage(net, ["0", "2"], size)
        needed = ppp.size_needed(size, found)
        windows = cut(found, scenes(2, *needed), size)
        assert ppp.measure(net, windows, ["0", "2"], coverage=found)["own", "2"].summary.n >= 2


@settings(max_examples=60, deadline=None)
@given(
    touched=st.tuples(*[st.integers(0, 9)] * 4),
    stride=st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 2),
    size=st.tuples(*[st.integers(1, 40)] * 2),
    extra=st.tuples(*[st.integers(0, 20)] * 2),
    seed=st.integers(0, 99),
)
def test_cut_windows_and_certify_agree(touched, stride, size, extra, seed):
    cells = tuple(-(-s // d) for s, d in zip(size, stride))
    layer = LayerCoverage("k", np.zeros(cells, dtype=bool), stride, touched)
    found = Coverage([layer], size)
    height, width = ppp.size_needed(size, found)
    shape = height + extra[0], width + extra[1]
    (picture,) = ppp.cut_windows(
        {"scene": torch.zeros(1, *shape)}, size, found, per_picture=9, seed=seed
    )
    whole = tuple(s // d for s, d in zip(shape, stride))
    layer.certify(whole, picture.tops, picture.lefts)
    with pytest.raises(MarginError):
        ppp.cut_windows(
            {"scene": torch.zeros(1, height - 1, width)}, size, found, per_picture=1, seed=0
        )


def test_the_transform_is_applied_to_each_picture(reach):
    pictures = scenes()
    for picture in cut(reach, transform=lambda x: x * 2 - 1):
        assert torch.equal(picture.pixels, pictures[picture.name] * 2 - 1)


def test_sources_are_read_only_when_their_turn_comes(reach):
    class Photo:
        height, width, reads = 80, 96, 0

        def __init__(self, name):
            self.name = name

        def pixels(self):
            Photo.reads += 1
            return torch.zeros(3, 80, 96)

    windows = cut(reach, [Photo("a"), Photo("b")])
    assert Photo.reads == 0 and len(windows) == 24
    next(iter(windows))
    assert Photo.reads == 1


def test_bad_arguments_are_refused(reach):
    for options in ({"per_picture": 0}, {"pictures": {}}):
        with pytest.raises(PictureError):
            cut(reach, **options)
    with pytest.raises(PPPError, match="input size 0"):
        cut(reach, size=0)


def test_windows_count_sequences_and_trust_a_given_number():
    picture = Picture("a", torch.zeros(3, 20, 20), np.array([0, 1]), np.array([0, 1]))
    assert len(Windows([picture, picture], 8)) == 4
    assert len(Windows(lambda: iter([picture]), 8, 2)) == 2
    with pytest.raises(TypeError, match="not known"):
        len(Windows(lambda: iter([picture]), 8))
    assert Windows([picture], 8).size == (8, 8)


def test_gather_cuts_the_named_cells():
    map_ = torch.arange(2 * 7 * 9).reshape(2, 7, 9)
    rows, columns = np.array([0, 3, 2]), np.array([5, 0, 4])
    got = gather(map_, rows, columns, (4, 3))
    expected = torch.stack([map_[:, r : r + 4, c : c + 3] for r, c in zip(rows, columns)])
    assert torch.equal(got, expected) and got.is_contiguous()


# --- pictures of any type ------------------------------------------------------------------


@pytest.fixture
def photograph():
    """Whole numbers (height, width, channels)."""
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_pictures_of_any_type_give_the_same_windows(photograph, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    reach = ppp.coverage(model, ["0"], 16)
    path, image = tmp_path / "a.png", Image.fromarray(photograph)
    image.save(path)
    pixels = torch.from_numpy(photograph).permute(2, 0, 1) / 255
    kinds = {
        "tensor": {"a.png": pixels}, "array": {"a.png": photograph}, "image": {"a.png": image},
        "path": {"a.png": path}, "text": [str(path)], "whole numbers": pixels.mul(255).byte(),
        "batch": pixels[None], "batch of arrays": photograph[None], "list": [image],
        "one array": photograph, "one path": path, "one image": image,
    }  # fmt: skip
    for kind, pictures in kinds.items():
        cut = ppp.cut_windows(pictures, 16, reach, per_picture=3, seed=0)
        (found,) = list(cut)
        assert torch.equal(found.pixels, pixels), kind
        names = isinstance(pictures, dict) or kind in ("text", "one path")
        assert found.name == ("a.png" if names else "picture 0")
        pictures = pictures["a.png"] if isinstance(pictures, dict) else pictures
        features = ppp.extract(model, pictures, ["0"])["0"]
        with torch.no_grad():
            torch.testing.assert_close(features, model(pixels[None]))
    cut = ppp.cut_windows([image, photograph], 16, reach, per_picture=3, seed=0)
    assert [picture.name for picture in cut] == ["picture 0", "picture 1"]
    assert ppp.measure(model, cut, ["0"], coverage=reach)["0"].null_test.passed


def test_what_is_no_picture_is_one_line(photograph, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    reach = ppp.coverage(model, ["0"], 16)
    (tmp_path / "notes.txt").write_text("no picture")
    for wrong, words in (
        ([3], "3; expected a tensor"), ([None], "None; expected a tensor"),
        ({"a": torch.zeros(2, 3, 40, 40)}, "picture 'a' is of shape (2, 3, 40, 40)"),
        (tmp_path / "notes.txt", "'notes.txt' cannot be read"), ("none.png", "No such file"),
        (tmp_path, "cannot be read"), (7, "7; expected"),
    ):  # fmt: skip
        options = {"per_picture": 1, "seed": 0, "error": PictureError}
        message = refused(ppp.cut_windows, wrong, 16, reach, **options)
        assert words in message, message
    two = [photograph, photograph[:30]]
    assert "one size" in refused(ppp.extract, model, two, ["0"], error=PictureError)
    for windows in ([torch.zeros(3, 40, 40)], torch.zeros(1, 3, 40, 40), photograph):
        message = refused(ppp.measure, model, windows, ["0"], error=PictureError)
        assert "ppp.cut_windows" in message and type(windows).__name__ in message
