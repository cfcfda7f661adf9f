"""Is there a pattern, and how large is it? What the mean maps of independent pictures say. [ours]

All of it needs only how alike the pictures' mean maps d_g are: their products, mean over channels
and cells of d_g d_g'. A common pattern shows in the products of different pictures, where noise
cancels, however correlated the windows inside a picture are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor

from ppp.errors import PPPError

_EXACT = 20  # pictures of which every pattern of signs is tried
_FLIPS = 9999  # random ones of more


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval; NaN bounds where none can be had."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def centre(self) -> float:
        """The middle of the interval: of a jackknife's, the value corrected for its bias."""
        return (self.low + self.high) / 2

    def __truediv__(self, by: float) -> Estimate:
        """Return it in other units."""
        return Estimate(*(x / by if by else float("nan") for x in vars(self).values()))

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def jackknife(
    value: float, left_out: Sequence[float], confidence: float, *, corrected: bool = True
) -> Estimate:
    """Delete-one-group jackknife interval around a plug-in value, or around its corrected one.

    Plug-in values such as mean ``|d|`` lie too high with few groups, so that an interval around
    them covers too seldom.

    Parameters
    ----------
    value : float
        From all groups.
    left_out : sequence of float
        The same without each of the groups in turn, at least two.
    confidence : float
        Level of the interval, 0 to 1; Student's t with one degree of freedom less than groups.
    corrected : bool
        Whether the interval's centre is the value corrected for bias (Quenouille 1956).

    Returns
    -------
    Estimate
        Without an interval (NaN) where a part is not finite.

    Examples
    --------
    >>> found = jackknife(2.0, [2.5, 2.0, 1.5], 0.95)  # of the mean of 1, 2, 3
    >>> round(found.low, 2), round(found.high, 2), found.centre
    (-0.48, 4.48, 2.0)
    """
    parts = np.asarray(left_out)
    if not np.isfinite(parts).all():  # as the ratio of a pattern to no spread at all
        return Estimate(value)
    groups = len(parts)
    error = np.sqrt((groups - 1) / groups * np.square(parts - parts.mean()).sum())
    half = float(special.stdtrit(groups - 1, (1 + confidence) / 2) * error)
    centre = float(groups * value - (groups - 1) * parts.mean()) if corrected else value
    return Estimate(value, centre - half, centre + half)


def products(means: Iterable[Tensor]) -> np.ndarray:
    """Return the mean products of maps with each other and, last, with a map of ones.

    Parameters
    ----------
    means : sequence of Tensor, or Tensor of shape (G, ...)
        One mean map per group of pictures.

    Returns
    -------
    ndarray of float64, shape (G + 1, G + 1)

    Examples
    --------
    >>> import torch
    >>> products(torch.tensor([[1.0, 3.0], [2.0, 0.0]])).tolist()
    [[5.0, 1.0, 2.0], [1.0, 2.0, 1.0], [2.0, 1.0, 1.0]]
    """
    flat = [mean.double().flatten() for mean in means]
    flat = torch.stack([*flat, torch.ones_like(flat[0])])
    return (flat @ flat.T / flat.shape[1]).cpu().numpy()


def unbiased_power(products: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Power of the common pattern in independent noisy maps, without bias.

    The mean over pairs g != g' of <d_g, d_g'>. With one window a group it equals
    mean(d^2 - s^2/n). The interval separates the variance of groups from that
    of pairs, so that it holds both with a pattern and without one.

    Parameters
    ----------
    products : ndarray, shape (G + 1, G + 1)
        Of :func:`products`.
    confidence : float
        Level of the interval (Student's t with G - 1 degrees of freedom), 0 to 1.

    Returns
    -------
    Estimate
        NaN for G < 2; no interval for G < 4.

    Examples
    --------
    >>> import torch
    >>> unbiased_power(products(torch.tensor([[1.0, 3.0], [2.0, 0.0]]))).value
    1.0
    """
    gram = products[:-1, :-1]
    groups = len(gram)
    if groups < 2:
        return Estimate(float("nan"))
    off = ~np.eye(groups, dtype=bool)
    value = float(gram[off].mean())
    if groups < 4:
        return Estimate(value)
    rows = gram.sum(1, where=off) / (groups - 1)
    effect = (groups - 1) / (groups - 2) * (rows - value)
    rest = (gram - value - effect[:, None] - effect[None, :])[off]
    pair = float((rest**2).sum() / 2 / (groups * (groups - 3) / 2))
    single = max(0.0, float((effect**2).sum()) / (groups - 1) - pair / (groups - 2))
    error = np.sqrt(4 * single / groups + 2 * pair / (groups * (groups - 1)))
    half = float(special.stdtrit(groups - 1, (1 + confidence) / 2) * error)
    return Estimate(value, value - half, value + half)


def between(first: Tensor, second: Tensor) -> np.ndarray:
    """Product of two common patterns in independent noisy maps, without bias.

    The mean over pairs g != g' of <a_g, d_g'>: what the windows of one picture share, noise
    included, is in none of them.

    Parameters
    ----------
    first, second : Tensor of float64, shape (G, cells)
        Mean maps of each group of pictures; at least two.

    Returns
    -------
    ndarray of float64, shape (G + 1,)
        From all groups, and without each in turn (NaN with two): what :func:`jackknife` takes.

    Examples
    --------
    >>> between(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])).tolist()
    [5.5, nan, nan]
    """
    gram = (first @ second.T / first.shape[1]).cpu().numpy()
    groups = len(gram)
    np.fill_diagonal(gram, 0)
    total, rows = gram.sum(), gram.sum(0) + gram.sum(1)
    left_out = (total - rows) / ((groups - 1) * (groups - 2) or np.nan)
    return np.array([total / (groups * (groups - 1)), *left_out])


def sign_flip_test(products: np.ndarray, seed: int = 0) -> float:
    """Return the p-value of "there is a pattern": the power when signs of whole pictures flip.

    One-sided. Exact if d_g and -d_g of a picture are equally likely without a pattern, which is
    more than a mean of 0: differences behind a ReLU are skewed, and where those of all cells are
    skewed alike, it finds too much with few pictures.

    Parameters
    ----------
    products : ndarray, shape (G + 1, G + 1)
        Of :func:`products`.
    seed : int
        Of 9,999 random flips, where there are more than 20 groups; up to 20, every flip is tried.

    Returns
    -------
    float
        At least 2^-(G - 1); NaN for G < 2.

    Examples
    --------
    >>> import torch
    >>> sign_flip_test(products(torch.ones(5, 8)))
    0.0625
    """
    gram = products[:-1, :-1] * (1 - np.eye(len(products) - 1))
    groups = len(gram)
    if groups < 2:
        return float("nan")
    signs = _signs(groups, seed)
    flipped = np.einsum("fg,fg->f", signs @ gram, signs)
    reached = int((flipped >= gram.sum() - 1e-12 * np.abs(gram).sum()).sum())
    return reached / len(signs) if groups <= _EXACT else (1 + reached) / (1 + len(signs))


@functools.lru_cache(1)  # a family of tests has as many groups in each
def _signs(groups: int, seed: int) -> np.ndarray:
    """Return every flip, or random ones; the first group keeps its sign, as only ratios count."""
    if groups <= _EXACT:
        flipped = np.arange(2 ** (groups - 1))[:, None] >> np.arange(groups - 1) & 1
    else:
        flipped = np.random.default_rng(seed).integers(2, size=(_FLIPS, groups - 1))
    return np.pad(1.0 - 2 * flipped, ((0, 0), (1, 0)), constant_values=1)


def fewest_groups(tests: int, level: float = 0.05) -> int:
    """Return how many pictures a family of sign-flip tests needs to find anything (Holm).

    Examples
    --------
    >>> fewest_groups(25)
    10
    """
    return 1 + int(np.ceil(np.log2(tests / level)))


def require_groups(tests: int, groups: int, level: float = 0.05) -> None:
    """Refuse a family of sign-flip tests that could not find anything.

    Raises
    ------
    PPPError
        Fewer pictures than :func:`fewest_groups`.

    Examples
    --------
    >>> require_groups(25, 8)
    Traceback (most recent call last):
    ppp.errors.PPPError: 25 tests at 5 % need 10 pictures, got 8; give more pictures or test less
    """
    if groups < (needed := fewest_groups(tests, level)):
        raise PPPError(
            f"{tests} tests at {100 * level:g} % need {needed} pictures, got {groups}; give more "
            "pictures or test less"
        )


def halves(
    products: np.ndarray, divisions: int = 100, seed: int = 0, *, without: int | None = None
) -> np.ndarray:
    """Correlate the estimates of the pattern from two halves of the pictures.

    Pearson's correlation over channels and cells of the means of two halves that share no
    picture, equally large (one is left out of an odd number).

    Parameters
    ----------
    products : ndarray, shape (G + 1, G + 1)
        Of :func:`products`.
    divisions : int
        Random divisions into halves.
    seed : int
        Of them.
    without : int, optional
        A picture that the same divisions are taken without: for a jackknife.

    Returns
    -------
    ndarray, shape (divisions,)

    Raises
    ------
    PPPError
        Fewer than four groups, or a mean map that is constant.

    Examples
    --------
    >>> import torch
    >>> halves(products(torch.tensor([[0.0, 1.0]] * 4)), 2).tolist()
    [1.0, 1.0]
    """
    groups = len(products) - 1
    if groups < 4:
        raise PPPError(f"two halves need 4 pictures at least, got {groups}")
    centred = products - np.outer(products[-1], products[-1])  # less the mean over cells
    weights = _divided(groups, divisions, seed)
    if without is not None:
        weights = np.where(np.arange(groups + 1) == without, 0, weights)
    between = weights @ centred @ weights.transpose(0, 2, 1)
    spread = between[:, 0, 0] * between[:, 1, 1]
    if not (spread > 0).all():
        raise PPPError("the mean maps are constant, so that halves cannot be correlated")
    return between[:, 0, 1] / np.sqrt(spread)


@functools.cache
def _divided(groups: int, divisions: int, seed: int) -> np.ndarray:
    """Return which groups are in each half of each division, (divisions, 2, groups + 1)."""
    rng, size = np.random.default_rng(seed), groups // 2
    weights = np.zeros((divisions, 2, groups + 1))
    for one in weights:
        order = rng.permutation(groups)
        one[0, order[:size]], one[1, order[size : 2 * size]] = 1, 1
    return weights
