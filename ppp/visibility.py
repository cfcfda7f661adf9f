"""How well does one map tell algorithmic from optimal padding? [ours]

The score of a map is the sum over cells of w * map, with w = d / v: the pattern d over the variance
v of the optimal maps, which is what hides the pattern in one map. Templates come from
some pictures, scores from others. A filter that knows the pattern bounds any eye from above.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from ppp.certificate import Coverage
from ppp.errors import PPPError
from ppp.measurement import differences
from ppp.metrics import Moments
from ppp.windows import Windows


def area(above: np.ndarray, below: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a score of `above` exceeds one of `below`.

    A tie counts half.

    Parameters
    ----------
    above, below : array of float
        Scores of the two classes.

    Raises
    ------
    PPPError
        A class is empty, or a score is NaN.

    Examples
    --------
    >>> area(np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    0.875
    """
    both = np.concatenate([above, below])
    if not (len(above) and len(below)) or np.isnan(both).any():
        raise PPPError(
            f"an area under the curve needs two classes of numbers; got {len(above)} and "
            f"{len(below)} scores, {int(np.isnan(both).sum())} of them NaN"
        )
    ranks = stats.rankdata(both)[: len(above)].sum()
    return float(ranks / len(above) - (len(above) + 1) / 2) / len(below)


@dataclass(frozen=True)
class Visibility:
    """Scores of single maps, algorithmic and optimal, of the tested pictures.

    Attributes
    ----------
    algorithmic, optimal : dict of str to ndarray, shape (n,)
        Of every window, in three versions: ``all channels``, ``best channel`` (chosen on the
        template's pictures) and ``channel mean``, which is what one sees of a layer.
    pictures : ndarray of int, shape (n,)
        The picture of each window.
    channel : int
        The best single channel.
    """

    algorithmic: dict[str, np.ndarray]
    optimal: dict[str, np.ndarray]
    pictures: np.ndarray
    channel: int

    def area(self, version: str = "all channels", n: int = 1) -> float:
        """Return the area under the ROC curve; 0.5 is invisible, 1 certain.

        Parameters
        ----------
        version : str
        n : int
            Maps that are averaged before they are judged, each of another picture where possible.

        Raises
        ------
        PPPError
            Fewer than two pictures, or fewer than `n` windows in each class.
        """
        first, second = self.algorithmic[version], self.optimal[version]
        names = np.unique(self.pictures)
        if len(names) < 2:
            raise PPPError("visibility compares maps of different pictures; give 2 at least")
        # Picture by picture in turns, so that neighbours are of different pictures.
        turn = np.zeros(len(first), int)
        for name in names:
            turn[self.pictures == name] = np.arange((self.pictures == name).sum())
        order = np.lexsort((self.pictures, turn))
        count = len(order) // n
        if not count:
            raise PPPError(f"{len(order)} windows are too few for means of {n} maps")
        first, second = (s[order][: count * n].reshape(count, n).mean(1) for s in (first, second))
        if n > 1:
            return area(first, second)
        of = self.pictures[order]
        parts = [
            (area(first[of == k], second[of != k]), (of == k).sum(), (of != k).sum()) for k in names
        ]
        areas, ones, others = np.array(parts).T
        return float((areas * ones * others).sum() / (ones * others).sum())


def visibility(
    model: nn.Module,
    template: Windows,
    tested: Windows,
    layers: Sequence[str],
    scheme: str | None = None,
    *,
    coverage: Coverage | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, Visibility]:
    """Measure how well a filter that knows the pattern tells algorithmic from optimal maps.

    Parameters
    ----------
    model, layers, scheme, coverage, batch_size, seed
        As in :func:`ppp.measure`.
    template : Windows
        From which the pattern, the variance and the best channel are taken.
    tested : Windows
        Of other pictures; their maps are judged.

    Returns
    -------
    dict of str to Visibility
        By layer.

    Raises
    ------
    PPPError
        The two share a picture; a layer's optimal features do not vary; or as
        :func:`ppp.measure`.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> reach = ppp.coverage(net, ["0"], 16)
    >>> draw = torch.Generator().manual_seed(0)
    >>> scenes = {str(i): torch.rand(3, 32, 32, generator=draw) for i in range(8)}
    >>> windows = ppp.cut_windows(scenes, 16, reach, per_picture=4, seed=0)
    >>> first, second = (Windows(list(windows)[i::2], 16) for i in (0, 1))
    >>> bool(visibility(net, first, second, ["0"], "zeros")["0"].area() > 0.9)
    True
    """
    names = [[picture.name for picture in windows] for windows in (template, tested)]
    if shared := set(names[0]) & set(names[1]):
        raise PPPError(f"picture {min(shared)!r} is in the template and tested; give other ones")

    def maps(windows: Windows) -> Iterator[tuple[str, str, Tensor, Tensor]]:
        how = {"coverage": coverage, "batch_size": batch_size, "seed": seed}
        return differences(model, windows, layers, scheme, **how)

    # The mean over channels is one channel more: its variance is not that of the channels.
    sums: dict[str, tuple[Moments, Moments]] = {}
    for _, layer, optimal, difference in maps(template):
        pattern, spread = sums.setdefault(layer, (Moments(), Moments()))
        pattern.update(_with_mean(difference))
        spread.update(_with_mean(optimal))
    weights = {}
    for layer, (pattern, spread) in sums.items():
        variance = spread.variance
        if not (floor := float(variance.max()) * 1e-6):
            raise PPPError(f"layer {layer!r}: its optimal features do not vary between windows")
        weights[layer] = pattern.mean / variance.clamp_min(floor)

    def scores(windows: Windows) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
        parts: dict[str, tuple[list, list, list]] = {layer: ([], [], []) for layer in weights}
        for picture, layer, optimal, difference in maps(windows):
            first, second, of = parts[layer]
            for kept, map_ in ((first, optimal + difference), (second, optimal)):
                kept.append((_with_mean(map_).double() * weights[layer]).sum((2, 3)).cpu())
            of += [picture] * len(optimal)
        return {
            k: (torch.cat(a).numpy(), torch.cat(o).numpy(), of) for k, (a, o, of) in parts.items()
        }

    chosen = {
        layer: max(range(a.shape[1] - 1), key=lambda c: area(a[:, c], o[:, c]))
        for layer, (a, o, _) in scores(template).items()
    }
    result = {}
    for layer, (a, o, of) in scores(tested).items():
        one, two = (
            {
                "all channels": s[:, :-1].sum(1),
                "best channel": s[:, chosen[layer]],
                "channel mean": s[:, -1],
            }
            for s in (a, o)
        )
        result[layer] = Visibility(one, two, np.unique(of, return_inverse=True)[1], chosen[layer])
    return result


def _with_mean(maps: Tensor) -> Tensor:
    """Append the mean over channels to the channels."""
    return torch.cat([maps, maps.mean(1, keepdim=True)], 1)
