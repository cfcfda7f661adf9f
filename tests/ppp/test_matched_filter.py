"""Visibility of single maps: its scores, against plain ones, and what it refuses."""

from functools import partial

import checks
import numpy as np
import pytest
import torch
from planted import SIZE, Planted
from torch import nn

import ppp
from ppp.matched_filter import Visibility, area
from ppp.windows import Windows

PLANTED = Planted((0.5, 0.1, -0.3), (0.3,) * 3)
VERSIONS = ["all channels", "best channel", "channel mean"]


def parts(each=3, pictures=(6, 5)):
    """Return windows of template and test."""
    made = enumerate(pictures)
    return [PLANTED.windows(n, each, seed=s, name=f"{s}, number") for s, n in made]


def refused(*arguments, **options) -> str:
    told = checks.refused(ppp.visibility, *arguments, **options)
    assert "nan" not in told.lower()
    return told


@pytest.fixture(scope="module")
def found():
    return ppp.visibility(PLANTED.network(), *parts(), ["0"])["0"]


@torch.no_grad()
def maps_of(windows):
    """Return the algorithmic and the optimal maps by brute force, and the picture of each."""
    made, names = [], []
    for picture in windows:
        for top, left in zip(picture.tops, picture.lefts):
            inside = picture.pixels[:, top - 1 : top + SIZE + 1, left - 1 : left + SIZE + 1]
            network = PLANTED.network()
            optimal = network(inside[None])[0, :, 1:-1, 1:-1]
            made.append([network(inside[None, :, 1:-1, 1:-1])[0].numpy(), optimal.numpy()])
            names.append(picture.name)
    return np.swapaxes(np.array(made, float), 0, 1), np.array(names)


def test_scores_are_sums_over_cells_of_pattern_over_variance_times_map(found):
    first, second = parts()
    (algorithmic, optimal), _ = maps_of(first)
    weights = (algorithmic - optimal).mean(0) / optimal.var(0, ddof=1)
    mean = (algorithmic - optimal).mean((0, 1)) / optimal.mean(1).var(0, ddof=1)
    channels = ((one * weights).sum((2, 3)).T for one in (algorithmic, optimal))
    best = [area(*pair) for pair in zip(*channels)]
    assert found.channel == np.argmax(best)
    judged, names = maps_of(second)
    assert found.pictures.tolist() == names.tolist()
    for maps, scores in zip(judged, (found.algorithmic, found.optimal)):
        each = (maps * weights).sum((2, 3))
        expected = {"all channels": each.sum(1), "best channel": each[:, found.channel]}
        expected["channel mean"] = (maps.mean(1) * mean).sum((1, 2))
        assert list(scores) == VERSIONS
        for version, values in expected.items():
            np.testing.assert_allclose(scores[version], values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("without", [[], ["1, number 2"]])
def test_single_maps_are_compared_with_those_of_other_pictures(found, version, without):
    above, below, names = found.algorithmic[version], found.optimal[version], found.pictures
    pairs = [
        (above[i] > below[j]) + (above[i] == below[j]) / 2
        for i in range(len(names))
        for j in range(len(names))
        if names[i] != names[j] and not {names[i], names[j]} & {*without}
    ]
    assert found.area(version, without=without) == pytest.approx(np.mean(pairs))
    assert len(pairs) == (15 - 3 * len(without)) * (12 - 3 * len(without))


def test_means_are_of_maps_of_different_pictures():
    """Five windows of each picture share its number: means over one of each are all alike."""
    names = np.repeat(["a", "b", "c", "d"], 5)
    scores = {"all channels": np.repeat([0.0, 1.0, 2.0, 3.0], 5)}
    higher = {"all channels": scores["all channels"] + 0.1}
    found = Visibility(higher, scores, names, 0)
    assert found.area() < 0.7 and found.area(n=4) == 1


def test_areas_are_those_of_all_pairs():
    draw = np.random.default_rng(0)
    above, below = draw.integers(0, 6, 30), draw.integers(0, 5, 20)
    wins = (above[:, None] > below) + (above[:, None] == below) / 2
    assert area(above, below) == pytest.approx(wins.mean())
    assert area(below, above) == pytest.approx(1 - wins.mean())
    assert area(np.ones(3), np.ones(2)) == 0.5


@pytest.mark.parametrize("above", [[], [np.nan, 1.0]])
def test_a_class_without_scores_has_no_area(above):
    told = checks.refused(area, np.array(above), np.ones(3))
    assert f"{len(above)} and 3 scores" in told
    checks.refused(area, np.ones(3), np.array(above))


def test_template_and_test_share_no_picture():
    first, second = (list(part) for part in parts())
    both = [*first, *second]
    told = refused(PLANTED.network(), Windows(both, SIZE), Windows(second, SIZE), ["0"])
    assert "'1, number 0'" in told


def test_one_picture_alone_cannot_be_judged(found):
    first, second = parts(pictures=(6, 1))
    assert "1 picture" in refused(PLANTED.network(), first, second, ["0"])
    assert "different pictures" in checks.refused(found.area, without=found.pictures[3:].tolist())


def test_means_of_more_maps_than_there_are_are_refused(found):
    assert "15 windows" in checks.refused(found.area, n=16)
    assert 0.5 < found.area(n=5) <= 1


def test_a_template_of_one_window_is_refused():
    first, second = parts(1, (1, 5))
    assert "2" in refused(PLANTED.network(), first, second, ["0"])


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_features_that_do_not_vary_hide_nothing_and_are_refused(gain):
    """A bias alone; and a pattern on constant ground, which no filter needs."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).eval()
    with torch.no_grad():
        network[0].weight.fill_(gain)
    flat = {f"{i}": torch.ones(1, 24, 24) for i in range(6)}
    reach = ppp.coverage(network, ["0"], SIZE)
    cut = partial(ppp.cut_windows, size=SIZE, coverage=reach, per_picture=2, seed=0)
    halves = (cut({k: flat[k] for k in names}) for names in ("012", "345"))
    told = refused(network, *halves, ["0"], coverage=reach)
    assert "'0'" in told and "do not vary" in told
