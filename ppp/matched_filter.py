"""How well does one map tell algorithmic from optimal padding? [ours]

The score of a map is the sum over cells of w * map, with w = d / v: the pattern d over the variance
v of the optimal maps, which is what hides the pattern in one map. Templates come from
some pictures, scores from others. A filter that knows the pattern bounds any eye from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from ppp.errors import PPPError
from ppp.measurement import measure
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
    pictures : ndarray of str, shape (n,)
        The picture of each window.
    channel : int
        The best single channel.
    """

    algorithmic: dict[str, np.ndarray]
    optimal: dict[str, np.ndarray]
    pictures: np.ndarray
    channel: int

    def area(self, version: str = "all channels", n: int = 1, without: Sequence[str] = ()) -> float:
        """Return the area under the ROC curve; 0.5 is invisible, 1 certain.

        Parameters
        ----------
        version : str
        n : int
            Maps that are averaged before they are judged, of different pictures where possible.
            For 1, only maps of different pictures are compared.
        without : sequence of str
            Pictures that are left out.

        Raises
        ------
        PPPError
            Fewer than two pictures, or fewer than `n` windows.
        """
        kept = ~np.isin(self.pictures, without)
        names, of = np.unique(self.pictures[kept], return_inverse=True)
        if len(names) < 2:
            raise PPPError("visibility compares maps of different pictures; give 2 at least")
        # In turns, a window of each picture, so that neighbours are of different ones.
        order = np.lexsort((of, pd.Series(of).groupby(of).cumcount()))
        count = len(order) // n
        if not count:
            raise PPPError(f"{len(order)} windows are too few for means of {n} maps")
        first, second = (
            scores[version][kept][order][: count * n].reshape(count, n).mean(1)
            for scores in (self.algorithmic, self.optimal)
        )
        if n > 1:
            return area(first, second)
        of, each = of[order], np.bincount(of)
        areas = [area(first[of == k], second[of != k]) for k in range(len(names))]
        return float(np.average(areas, weights=each * (len(of) - each)))


def visibility(
    model: nn.Module,
    template: Windows,
    tested: Windows,
    layers: Sequence[str],
    scheme: str | None = None,
    **settings: Any,
) -> dict[str, Visibility]:
    """Measure how well a filter that knows the pattern tells algorithmic from optimal maps.

    Parameters
    ----------
    model, layers, scheme
        As in :func:`ppp.measure`.
    template : Windows
        From which the pattern, the variance and the best channel are taken.
    tested : Windows
        Of other pictures; their maps are judged.
    **settings
        Others of :func:`ppp.measure`: coverage, batch_size, pools, seed, memory.

    Returns
    -------
    dict of str to Visibility
        By layer.

    Raises
    ------
    PPPError
        The two share a picture; fewer than two are tested; a layer's optimal features do not
        vary; or as :func:`ppp.measure`.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> reach = ppp.coverage(net, ["0"], 16)
    >>> draw = torch.Generator().manual_seed(0)
    >>> scenes = {str(i): torch.rand(3, 32, 32, generator=draw) for i in range(8)}
    >>> windows = ppp.cut_windows(scenes, 16, reach, per_picture=4, seed=0)
    >>> first, second = (ppp.Windows(list(windows)[i::2], 16) for i in (0, 1))
    >>> bool(ppp.visibility(net, first, second, ["0"], "zeros")["0"].area() > 0.9)
    True
    """
    names = [{picture.name for picture in windows} for windows in (template, tested)]
    if shared := set.intersection(*names):
        raise PPPError(f"picture {min(shared)!r} is in the template and tested; give other ones")
    if len(names[1]) < 2:
        raise PPPError(f"{len(names[1])} picture is tested; visibility compares maps of 2 at least")
    layers = [layers] if isinstance(layers, str) else list(layers)
    # The mean over channels is one channel more: its variance is not that of the channels.
    spreads = {layer: Moments() for layer in layers}

    def spread(_picture: str, _scheme: str, layer: str, _: Tensor, optimal: Tensor) -> None:
        spreads[layer].update(_with_mean(optimal))

    measured = measure(model, template, layers, scheme, maps=spread, **settings)
    weights = {}
    for (_, layer), result in measured.items():
        variance = spreads[layer].variance
        if not (floor := float(variance.max()) * 1e-6):
            raise PPPError(f"layer {layer!r}: its optimal features do not vary between windows")
        pattern = torch.from_numpy(result.pattern).to(variance)
        weights[layer] = _with_mean(pattern[None])[0] / variance.clamp_min(floor)

    def scores(windows: Windows) -> dict[str, list[np.ndarray]]:
        parts: dict[str, tuple[list, list, list]] = {layer: ([], [], []) for layer in layers}

        def score(picture: str, _scheme: str, layer: str, *pair: Tensor) -> None:
            for kept, map_ in zip(parts[layer], pair):
                kept.append((_with_mean(map_).double() * weights[layer]).sum((2, 3)).cpu().numpy())
            parts[layer][2].append([picture] * len(pair[0]))

        measure(model, windows, layers, scheme, maps=score, **settings)
        return {layer: [np.concatenate(each) for each in part] for layer, part in parts.items()}

    result, judged = {}, scores(tested)
    for layer, (above, below, _) in scores(template).items():
        best = int(np.argmax([area(*pair) for pair in zip(above.T[:-1], below.T[:-1])]))
        *classes, of = judged[layer]
        result[layer] = Visibility(*(_versions(one, best) for one in classes), of, best)
    return result


def _versions(scores: np.ndarray, best: int) -> dict[str, np.ndarray]:
    """Return three versions of the scores of all channels and of their mean, (n, channels + 1)."""
    columns = scores[:, :-1].sum(1), scores[:, best], scores[:, -1]
    return dict(zip(("all channels", "best channel", "channel mean"), columns))


def _with_mean(maps: Tensor) -> Tensor:
    """Append the mean over channels as one channel more."""
    return torch.cat([maps, maps.mean(1, keepdim=True)], 1)
