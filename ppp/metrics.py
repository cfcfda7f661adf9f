"""Statistics of D = algorithmic - optimal features: streaming moments and the PPP metrics.

PPP_k = E[D_k] over scenes [paper, Figure 1]. The two metrics follow the paper's
"signal-to-noise perspective"; their formulas are ours [ours].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import prod

import numpy as np
import torch
from scipy import special
from torch import Tensor

from ppp.errors import PPPError
from ppp.statistics import Estimate, jackknife, products, sign_flip_test, unbiased_power

#: float64 values that a processor core keeps in its cache.
_CACHED = 2**17


@dataclass
class Moments:
    """Count, mean and summed squared deviation per cell, updated batch by batch.

    float64 throughout; two of them merge exactly (Chan, Golub & LeVeque 1983).

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(10, 3, 4, 4)
    >>> whole = Moments().update(x)
    >>> parts = Moments().update(x[:3]).merge(Moments().update(x[3:]))
    >>> torch.allclose(whole.m2, parts.m2)
    True
    """

    n: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    m2: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def update(self, samples: Tensor, less: Tensor | None = None) -> Moments:
        """Add samples of shape (n, ...), or their differences from `less`; returns itself."""
        n, shape = len(samples), samples.shape[1:]
        flat = samples.reshape(n, prod(shape))
        mean, m2 = flat.new_empty(2, flat.shape[1], dtype=torch.float64)
        # Piece by piece: whole maps in float64 would leave the cache, ten times slower.
        step = max(1, _CACHED // max(1, n)) if flat.device.type == "cpu" else prod(shape)
        others = repeat(0) if less is None else less.reshape(n, prod(shape)).split(step, -1)
        pieces = (x.split(step, -1) for x in (flat, mean, m2))
        for piece, centre, spread, other in zip(*pieces, others):
            piece = (piece - other).to(torch.float64)
            torch.mean(piece, 0, out=centre)
            torch.sum(piece.sub_(centre).square_(), 0, out=spread)
        return self.merge(Moments(n, mean.view(shape), m2.view(shape)))

    def merge(self, other: Moments) -> Moments:
        """Add what another has seen; returns itself."""
        if other.n and not self.n:
            self.n, self.mean, self.m2 = other.n, other.mean.clone(), other.m2.clone()
        elif other.n:
            n = self.n + other.n
            delta = other.mean - self.mean
            self.m2.add_(other.m2).addcmul_(delta, delta, value=self.n * other.n / n)
            self.mean.add_(delta, alpha=other.n / n)
            self.n = n
        return self

    def pooled(self) -> Moments:
        """Return the moments of all elements, whichever their cell."""
        mean = self.mean.mean()
        m2 = self.m2.sum() + self.n * (self.mean - mean).square().sum()
        return Moments(self.n * self.mean.numel(), mean, m2)

    @property
    def variance(self) -> Tensor:
        """Unbiased variance per cell; needs n >= 2."""
        if self.n < 2:
            raise PPPError(f"a variance needs at least 2 samples, got {self.n}")
        return self.m2 / (self.n - 1)


def merged(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all parts together; the parts stay as they are."""
    return functools.reduce(Moments.merge, parts, Moments())


def leave_one_out(parts: Sequence[Moments]) -> Iterator[Moments]:
    """Yield, for each part, the moments of all the others.

    Built from merges alone: subtracting a part again would leave rounding noise in cells
    that are exactly 0 in all the others.
    """
    after = [Moments()]
    for part in reversed(parts[1:]):
        after.append(merged([after[-1], part]))
    before = Moments()
    for part in parts:
        yield merged([before, after.pop()])
        before.merge(part)


@dataclass(frozen=True)
class Summary:
    """The metrics of one layer under one scheme.

    Attributes
    ----------
    n, groups : int
        Windows, and independent groups of pictures they fall into.
    mae : Estimate
        MAE-PPP = ``mean |d| / sigma``; dimensionless, >= 0, higher is a stronger pattern.
    mae_raw : float
        ``mean |d|`` in the layer's own units.
    influenced : float
        Share of cells that padding can touch; in all others d is 0 by the certificate, and masked.
    mae_floor, snr_floor : float
        What the two metrics would show without any pattern, at this n. Near it they are noise,
        and their intervals do not cover 0: `p` says whether there is a pattern.
    snr : Estimate
        SNR-PPP = ``mean(|d| / s)``, >= 0; cells with d = s = 0 count as 0.
    snr_db : float
        20 log10 of it.
    power : Estimate
        Unbiased power of the pattern, mean of PPP^2 over cells; may be negative.
    p : float
        Of the sign-flip test over groups: is there a pattern?
    power_windows : float
        mean(d^2 - s^2/n): unbiased only if windows are independent.
    noise_power : float
        V = mean s^2.
    share : float
        power / (power + V): the part of padding's error that is one fixed pattern.
    sigma : float
        Standard deviation of the optimal features: the natural scale of the layer.
    detected : float
        Share of cells significant at a false-discovery rate of 5 %; NaN where windows share a
        picture, as they are not independent then.
    """

    n: int
    groups: int
    mae: Estimate
    mae_raw: float
    influenced: float
    mae_floor: float
    snr: Estimate
    snr_db: float
    snr_floor: float
    power: Estimate
    p: float
    power_windows: float
    noise_power: float
    share: float
    sigma: float
    detected: float

    @property
    def mae_influenced(self) -> Estimate:
        """MAE-PPP over the influenced cells alone, by which layers can be compared."""
        return self.mae / self.influenced

    @property
    def snr_influenced(self) -> Estimate:
        """SNR-PPP over the influenced cells alone."""
        return self.snr / self.influenced

    @property
    def amplitude(self) -> float:
        """Signed root of the unbiased power, in the layer's units: one size without noise."""
        return float(np.copysign(abs(self.power.value) ** 0.5, self.power.value))


def mae_ppp(mean: Tensor, sigma: float) -> float:
    """MAE-PPP: mean ``|d|`` over channels and cells, in units of sigma [ours].

    Examples
    --------
    >>> import torch
    >>> mae_ppp(torch.tensor([[[1.0, -3.0]]]), 2.0)
    1.0
    """
    return float(mean.abs().mean()) / sigma if sigma > 0 else float("nan")


def snr_ppp(mean: Tensor, variance: Tensor) -> float:
    """SNR-PPP: mean of ``|d| / s`` over channels and cells; 0 where both are 0 [ours].

    Examples
    --------
    >>> import torch
    >>> snr_ppp(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.25, 0.0]]]))
    1.0
    """
    ratio = mean.abs() / variance.sqrt()
    return float(ratio.masked_fill_((mean == 0) & (variance == 0), 0.0).mean())


def significant(moments: Moments, rate: float = 0.05) -> Tensor:
    """Mark the cells whose mean differs from 0 at a false-discovery rate (Benjamini-Hochberg).

    Per-cell statistic d / (s / sqrt(n)) against Student's t; it takes samples as
    independent. Cells with s = 0 count as significant if d != 0.

    Returns
    -------
    Tensor of bool, shape of the cells

    Examples
    --------
    >>> import torch
    >>> noise = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    >>> noise[:, :, 0] += 3
    >>> significant(Moments().update(noise))[0].any(1)
    tensor([ True, False, False, False])
    """
    score = _score(moments.mean, moments.variance / moments.n)
    return _discoveries(lambda p: score >= abs(special.stdtrit(moments.n - 1, p / 2)), rate)


def separated(first: Moments, second: Moments, rate: float = 0.05) -> Tensor:
    """Mark the cells at which two unpaired samples differ (Welch, Benjamini-Hochberg).

    Returns
    -------
    Tensor of bool, shape of the cells
    """
    a, b = first.variance / first.n, second.variance / second.n
    freedom = (a + b).square() / (a.square() / (first.n - 1) + b.square() / (second.n - 1))
    score = _score(first.mean - second.mean, a + b).cpu().numpy()
    p_values = torch.from_numpy(2 * special.stdtr(freedom.nan_to_num(1.0).cpu().numpy(), -score))
    return _discoveries(lambda p: p_values <= p, rate)


def _score(difference: Tensor, variance: Tensor) -> Tensor:
    return torch.where(difference == 0, 0.0, difference.abs() / variance.sqrt())


def _discoveries(within: Callable[[float], Tensor], rate: float) -> Tensor:
    """Benjamini-Hochberg over all cells; ``within(p)`` marks those with at most this p-value.

    The k smallest p-values count, k the largest number with p_(k) <= rate k / cells. It is
    the greatest fixed point of k -> how many p-values are <= rate k / cells, so counting
    down from all cells finds it without sorting them, or even knowing their p-values.
    """
    found = within(rate)
    count = found.numel()
    while (fewer := int(found.sum())) < count:
        count = fewer
        found = within(rate * count / found.numel())
    return found


def noise_floor(groups: Sequence[Moments], flips: int = 8, seed: int = 0) -> Tensor:
    """Return ``|noise of d|`` per cell, averaged over random sign flips [ours].

    The deviation of each group from the common mean keeps its size and gets a random
    sign, so the pattern is gone and the noise, with all its correlation inside groups,
    stays. With a single group it is the analytic s sqrt(2 / (pi n)), which takes windows
    as independent.

    Returns
    -------
    Tensor, shape of the cells
    """
    total = merged(groups)
    if len(groups) < 2:
        return (total.variance / total.n * (2 / np.pi)).sqrt()
    weights = np.array([g.n / total.n for g in groups])
    half = np.resize([-1.0, 1.0], len(groups))  # half of each sign
    signs = np.random.default_rng(seed).permuted(np.tile(half, (flips, 1)), axis=1)
    floor = torch.zeros_like(total.mean)
    for row in signs:
        noise = torch.zeros_like(total.mean)
        for sign, weight, group in zip(row, weights, groups):
            noise += float(sign * weight) * (group.mean - total.mean)
        # with S the weighted sum of signs, the common mean took a share S^2 of the variance
        floor += noise.abs_() / np.sqrt(1 - float(row @ weights) ** 2)
    return floor / flips


def summarise(
    differences: Sequence[Moments], scales: Sequence[Moments], *, confidence: float = 0.95,
    floor: Tensor | None = None, influenced: float = 1.0, pictures: int | None = None,
) -> Summary:  # fmt: skip
    """Compute every metric of one layer from the moments of its groups of pictures.

    Parameters
    ----------
    differences : sequence of Moments, cells (C, H, W)
        Of D, one per group; groups without samples are left out.
    scales : sequence of Moments, scalar
        Of the optimal features over samples and cells, one per group, in the same order.
    confidence : float
        Level of the intervals: delete-one-group jackknife for the two metrics,
        :func:`ppp.statistics.unbiased_power` for the power.
    floor : Tensor, cells (C, H, W), optional
        What :func:`noise_floor` gave, if it is known already.
    influenced : float
        Share of cells that padding can touch.
    pictures : int, optional
        That the windows are cut from; by default one a window.

    Returns
    -------
    Summary

    Raises
    ------
    PPPError
        Fewer than two samples.
    """
    pairs = [(d, s) for d, s in zip(differences, scales) if d.n]
    groups, scale_groups = [d for d, _ in pairs], [s for _, s in pairs]
    total, scale = merged(groups), merged(scale_groups)
    sigma = float(scale.variance.sqrt())
    variance = total.variance
    if not (torch.isfinite(variance).all() and np.isfinite(sigma)):
        raise PPPError("some features are NaN or infinite; check the network's weights and pixels")
    floor = noise_floor(groups) if floor is None else floor
    mae, snr = mae_ppp(total.mean, sigma), snr_ppp(total.mean, variance)
    left_out = []
    if len(groups) > 1 and all(total.n - g.n >= 2 for g in groups):
        for rest, scale_rest in zip(leave_one_out(groups), leave_one_out(scale_groups)):
            sigma_rest = float(scale_rest.variance.sqrt())
            left_out.append((mae_ppp(rest.mean, sigma_rest), snr_ppp(rest.mean, rest.variance)))
    intervals = [jackknife(v, column, confidence) for v, column in zip((mae, snr), zip(*left_out))]
    mae_interval, snr_interval = intervals or (Estimate(mae), Estimate(snr))
    alike = products([g.mean for g in groups])
    power = unbiased_power(alike, confidence)
    power_windows = float((total.mean.square() - variance / total.n).mean())
    noise_power = float(variance.mean())
    best = power.value if np.isfinite(power.value) else power_windows
    floor_ratio = (floor / variance.sqrt()).masked_fill_(floor == 0, 0.0)
    independent = pictures is None or pictures == total.n
    return Summary(
        n=total.n, groups=len(groups), sigma=sigma, mae=mae_interval, snr=snr_interval,
        mae_raw=float(total.mean.abs().mean()), snr_floor=float(floor_ratio.mean()),
        mae_floor=float(floor.mean()) / sigma if sigma > 0 else float("nan"),
        snr_db=float(20 * np.log10(snr)) if snr > 0 else float("-inf"), influenced=influenced,
        power=power, p=sign_flip_test(alike), power_windows=power_windows, noise_power=noise_power,
        share=best / (best + noise_power) if best + noise_power else 0.0,
        detected=float(significant(total).double().mean()) if independent else float("nan"),
    )  # fmt: skip
