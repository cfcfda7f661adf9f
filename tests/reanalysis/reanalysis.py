"""Every verdict and every grade, computed a second time from the shipped tables alone.

This program shares nothing with the studies but the files: ``data/claims.yaml`` says what is
computed, the tables in ``data/`` hold the measurements. Each function follows the words of its
claim; a comment that begins with "Open:" says how words were read that leave a choice.

    python tests/reanalysis/reanalysis.py [data]
"""

from __future__ import annotations

import sys
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.stats import f as fisher, t as student, ttest_1samp, ttest_ind

SCHEMES = ["zeros", "reflect", "replicate", "circular", "randn"]
LAYERS = ["relu", "layer1", "layer2", "layer3", "layer4"]
TARGETS = ["H", "V", "G", "HS", "VS"]
OLD, NEW = range(5), range(5, 10)  # seeds of the first tests, of the amended ones of C8 to C11
STRENGTHS = ["mae", "snr"]
SUPPORTED, AGAINST, MIXED = "supported", "against", "mixed"
UNDERPOWERED, NOT_EVALUABLE = "underpowered", "not evaluable here"
FAMILY_OF_FIVE = 1 - 0.05 / 5
DRAWS, DIVISIONS, SEED = 9999, 100, 20230713


# ------------------------------------------------------------------------------------ files


@cache
def table(data: Path, name: str) -> pd.DataFrame:
    """Read a table, compressed or not; of the studies of networks, the residual ones."""
    found = [path for path in (data / f"{name}.csv.gz", data / f"{name}.csv") if path.exists()]
    if not found:
        raise SystemExit(f"{data / name}.csv.gz is missing")
    rows = pd.read_csv(found[0], keep_default_na=False, na_values=[""])
    return rows[rows["family"] == "resnet"] if "family" in rows else rows


def numbers(data: Path, claim: str) -> dict:
    """Return what claims.yaml says of a claim."""
    return yaml.safe_load((data / "claims.yaml").read_text(encoding="utf-8"))[claim]


def block(rows: pd.DataFrame, value: str, **axes) -> np.ndarray:
    """Return a column as an array with one axis for each column named, in the order given."""
    every = pd.MultiIndex.from_product(list(axes.values()))
    column = rows.set_index(list(axes))[value]
    if column.index.has_duplicates or len(lost := every.difference(column.index)):
        raise SystemExit(f"{value}: rows are missing or double, such as {lost[:1].tolist()}")
    return column.reindex(every).to_numpy(float).reshape([len(axis) for axis in axes.values()])


# ------------------------------------------------------------------------------- statistics


def over_seeds(values, level: float = 0.95) -> tuple[float, float, float]:
    """Return a mean and its interval by Student's t."""
    values = np.asarray(values, float)
    error = values.std(ddof=1) / len(values) ** 0.5
    return around(values.mean(), error, len(values) - 1, level)


def around(centre, error, freedom, level) -> tuple[float, float, float]:
    half = student.ppf((1 + level) / 2, freedom) * error
    return centre, centre - half, centre + half


def jackknife(statistic, n: int, level: float = 0.95, corrected: bool = False):
    """Return a statistic of a list of seeds with its delete-one interval."""
    every = list(range(n))
    whole, rest = statistic(every), np.array([statistic(every[:i] + every[i + 1 :]) for i in every])
    error = ((n - 1) / n * ((rest - rest.mean()) ** 2).sum()) ** 0.5
    return around(n * whole - (n - 1) * rest.mean() if corrected else whole, error, n - 1, level)


def two_way(values: np.ndarray, level: float) -> tuple[float, float, float]:
    """Return a mean over networks with an interval over networks and photographs.

    The first row holds each network's value with all photographs, the others without one each.
    """
    # Open: "two-way jackknife". Both variances are added, the smaller degrees of freedom count,
    # and the centre is bias-corrected over photographs.
    whole, rest = values[0], values[1:].mean(1)
    n, k = len(whole), len(rest)
    error = whole.var(ddof=1) / n + (k - 1) / k * ((rest - rest.mean()) ** 2).sum()
    centre = k * whole.mean() - (k - 1) * rest.mean()
    return around(centre, error**0.5, min(n, k) - 1, level)


def holm(p) -> np.ndarray:
    """Adjust p-values for their number."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def verdict(reproduced: bool, not_reproduced: bool) -> str:
    if reproduced:
        return "reproduced"
    return "not reproduced" if not_reproduced else "inconclusive"


def grade(row, delta: float, above: str = SUPPORTED, below: str = AGAINST) -> str:
    _, low, high = row
    return above if low > delta else below if high < delta else UNDERPOWERED


def together(grades) -> str:
    """Grade a claim by its rows."""
    evaluable = set(grades) - {NOT_EVALUABLE}
    if not evaluable:
        return NOT_EVALUABLE
    if len(evaluable) == 1:
        return evaluable.pop()
    return MIXED if {SUPPORTED, AGAINST} <= evaluable else UNDERPOWERED


def listed(rows: dict) -> pd.DataFrame:
    """Make a table of rows: name -> (value, low, high[, grade])."""
    head = ["value", "low", "high", "grade"]
    return pd.DataFrame([(*r, "")[:4] for r in rows.values()], index=list(rows), columns=head)


def graded(rows: dict) -> tuple[str, pd.DataFrame]:
    return together(row[3] for row in rows.values()), listed(rows)


# ----------------------------------------------------------------------- PosENet: C1 and C6


def agreement(scores: np.ndarray) -> tuple[float, float, float]:
    """Return ICC(A,1) of networks x trials with its 95 % interval (McGraw & Wong 1996)."""
    n, k = scores.shape
    rows, columns = scores.mean(1) - scores.mean(), scores.mean(0) - scores.mean()
    left = scores - scores.mean() - rows[:, None] - columns
    msr, msc = k * (rows**2).sum() / (n - 1), n * (columns**2).sum() / (k - 1)
    mse = (left**2).sum() / (n - 1) / (k - 1)
    icc = (msr - mse) / (msr + (k - 1) * mse + k / n * (msc - mse))
    a, b = k * icc / n / (1 - icc), 1 + k * icc * (n - 1) / n / (1 - icc)
    parts = (a * msc) ** 2 / (k - 1) + (b * mse) ** 2 / (n - 1) / (k - 1)
    freedom = (a * msc + b * mse) ** 2 / parts
    lower, upper = fisher.ppf(0.975, n - 1, freedom), fisher.ppf(0.975, freedom, n - 1)
    rest = k * msc + (k * n - k - n) * mse
    low = n * (msr - lower * mse) / (lower * rest + n * msr)
    return icc, low, n * (upper * msr - mse) / (rest + n * upper * msr)


def posenet(data: Path, score: str) -> np.ndarray:
    """Return target x scheme x seed x trial."""
    rows = table(data, "posenet/trials").query("part == 'trained' and images == 'photographs'")
    return block(rows, score, target=TARGETS, padding=SCHEMES, seed=OLD, trial=range(20))


def one_set(data: Path, schemes: slice, threshold: float) -> tuple[dict, str]:
    rows, sides = {}, {SUPPORTED: [], AGAINST: []}
    for score in ("spc", "mae"):
        for target, scores in zip(TARGETS, posenet(data, score)[:, schemes]):
            row = agreement(scores.reshape(-1, 20))
            rows[f"{score}, {target}"] = (*row, grade(row, threshold, AGAINST, SUPPORTED))
        found = [rows[f"{score}, {target}"][3] for target in TARGETS]
        for side, counts in sides.items():
            counts.append(found.count(side) >= 3)
    return rows, next((side for side, enough in sides.items() if all(enough)), UNDERPOWERED)


def first_c1(data: Path):
    rows, side = one_set(data, slice(None), numbers(data, "C1")["threshold"])
    return verdict(side == SUPPORTED, side == AGAINST), listed(rows)


def grade_c1(data: Path):
    delta, rows, sides = numbers(data, "C1")["amended"]["delta"], {}, []
    for name, schemes in (("all", slice(None)), ("without zeros", slice(1, None))):
        found, side = one_set(data, schemes, delta)
        rows |= {f"{name}, {key}": row for key, row in found.items()}
        sides.append(side)
    # Open: "two sets that disagree are mixed". One that supports beside an underpowered one is
    # underpowered, by the general rule.
    return together(sides), listed(rows)


def contradiction(scores: np.ndarray, seeds: list[int]) -> float:
    """Return how likely two runs contradict each other, of scheme x seed x trial."""
    # Open: "one trial" is the same one for both networks of a run, and drawn anew for the other
    # run; a tie in either run counts half, so that a pair of runs gives (1 - sign * sign) / 2.
    n, found = len(seeds), []
    for one, other in combinations(scores[:, seeds], 2):
        sign = np.sign(one[:, None] - other[None]).mean(-1)
        apart = (
            sign.sum() ** 2
            - (sign.sum(0) ** 2).sum()
            - (sign.sum(1) ** 2).sum()
            + (sign**2).sum()
        )
        found.append((1 - apart / (n * (n - 1)) ** 2) / 2)
    return float(np.mean(found))


def differences(data: Path) -> dict:
    rows = table(data, "posenet/ppp").query("part == 'trained'")
    axes = {"layer": LAYERS, "padding": SCHEMES, "seed": OLD, "trial": range(20)}
    ours = {m: block(rows[rows["metric"] == m], "value", **axes) for m in STRENGTHS}
    named = ("S-zero", "S-reflect", "S-replicate", "S-circular", "S-randn")
    bhv = np.stack([accuracy(data, variant)[:5] for variant in named])[None, :, :, None]
    others = {"spc": posenet(data, "spc"), "mae": posenet(data, "mae"), "bhv": bhv}

    def mean(scores, seeds):
        return np.mean([contradiction(part, seeds) for part in scores])

    return {
        f"{m} - {other}": jackknife(lambda s, a=ours[m], b=b: mean(a, s) - mean(b, s), 5)
        for m in STRENGTHS
        for other, b in others.items()
    }


def first_c6(data: Path):
    rows = differences(data)
    bounds = rows.values()
    return verdict(all(r[2] < 0 for r in bounds), any(r[1] > 0 for r in bounds)), listed(rows)


def grade_c6(data: Path):
    delta = numbers(data, "C6")["amended"]["delta"]
    rows = differences(data).items()
    return graded({k: (*row, grade(row, delta, AGAINST, SUPPORTED)) for k, row in rows})


# --------------------------------------------------------------------------------- BHV: C2


def accuracy(data, variant, condition="published", split="leaked", epochs=50, shift=16):
    """Return the accuracies of a variant's networks in percent, by seed."""
    rows = table(data, "bhv/accuracy")
    rows = rows[(rows["condition"] == condition) & (rows["variant"] == variant)]
    rows = rows[(rows["split"] == split) & (rows["epochs"] == epochs) & (rows["shift"] == shift)]
    return 100 * rows.sort_values("seed")["accuracy"].to_numpy()


def levels_of_bhv() -> dict:
    canvases = ("0.25", "0.5", "1", "noise", "photograph")
    return {
        ("published", ""): {},
        **{("canvas", c): {"condition": f"canvas-{c}"} for c in canvases},
        **{("shift", s): {"shift": s} for s in range(9, 16)},
        # Open: V has no padding whose amount could change. The others are given one amount;
        # what becomes the same variant twice has no order.
        ("amount", 1): {"renamed": {"F-zero": "S-zero"}},
        ("amount", 2): {"renamed": {"S-zero": "F-zero", "S-circular": "S-circular-2"}},
        ("splits", "independent"): {"split": "independent"},
        ("shuffling", "yes"): {"condition": "shuffled"},
        ("length", 100): {"epochs": 100},
        ("block", 6): {"condition": "block-6"},
        ("size", 24): {"condition": "size-24", "shift": 8},
    }


def guilty(data: Path) -> dict:
    """Return for each factor how many orders and uses of location have flipped."""
    margin = numbers(data, "C2")["margin"]
    orders, losses = {}, {}
    for level, changes in levels_of_bhv().items():
        renamed = changes.pop("renamed", {})
        names = [v for v in ("V", "S-zero", "S-circular", "F-zero") if v != "V" or not renamed]
        moved = {v: accuracy(data, renamed.get(v, v), **changes) for v in names}
        still = {v: accuracy(data, renamed.get(v, v), **changes | {"shift": 0}) for v in names}
        losses |= {(level, v): still[v] - moved[v] for v in names}
        for pair in combinations(names, 2):
            if len({renamed.get(v, v) for v in pair}) == 2:
                one, other = (moved[v] for v in pair)
                same = one.mean() == other.mean()
                p = 1.0 if same else ttest_ind(one, other, equal_var=False).pvalue
                orders[level, pair] = np.sign(one.mean() - other.mean()), p
    # Open: the published condition's own tests count among "all levels".
    adjusted = holm([p for _, p in orders.values()])
    answers = {k: sign * (p < 0.05) for (k, (sign, _)), p in zip(orders.items(), adjusted)}
    bounds = {k: over_seeds(loss, 1 - 0.05 / len(losses)) for k, loss in losses.items()}
    uses = {k: int(low > margin) - int(high < margin) for k, (_, low, high) in bounds.items()}
    flips = {}
    for column, found in enumerate((answers, uses)):
        for (level, what), answer in found.items():
            count = flips.setdefault(level[0], [0, 0])
            count[column] += answer * found[("published", ""), what] < 0
    del flips["published"]
    return flips


def c2(data: Path):
    flips = guilty(data)
    # The three columns: flips of either kind, of orders, of uses of location.
    return sum(map(any, flips.values())), listed({k: (sum(n), *n) for k, n in flips.items()})


def first_c2(data: Path):
    count, rows = c2(data)
    return verdict(count >= 2, count == 0), rows


def grade_c2(data: Path):
    count, rows = c2(data)
    return SUPPORTED if count >= 2 else UNDERPOWERED if count else AGAINST, rows


# -------------------------------------------------------- patterns, first tests: C3, C4, C5, C7


def own(data: Path, name: str) -> pd.DataFrame:
    rows = table(data, f"patterns/{name}").query("state == 'trained' and scheme == padding")
    return rows[rows["scheme"].isin(SCHEMES)]


def halves(data: Path, pictures: str, n: int) -> np.ndarray:
    """Return the correlation of two halves, scheme x layer x seed."""
    rows = own(data, "halves").query("data == @pictures and n == @n")
    return block(rows, "r", scheme=SCHEMES, layer=LAYERS, seed=OLD)


def on_photographs(data: Path, *columns: str) -> list[np.ndarray]:
    rows = own(data, "metrics").query("data == 'photographs'")
    return [block(rows, c, scheme=SCHEMES, layer=LAYERS, seed=OLD) for c in columns]


def first_c3(data: Path):
    bar, r = numbers(data, "C3")["threshold"], halves(data, "photographs", 256)
    cells = np.array([[over_seeds(seeds) for seeds in layers] for layers in r])
    above, below = (cells[..., 1] > bar).sum(1), (cells[..., 2] < bar).sum(1)
    names = [(s, k) for s in range(5) for k in range(5)]
    rows = {f"{SCHEMES[s]}, {LAYERS[k]}": tuple(cells[s, k]) for s, k in names}
    return verdict(all(above >= 3), any(below >= 3)), listed(rows)


def first_c4(data: Path):
    claim = numbers(data, "C4")
    power, noise = on_photographs(data, "power", "noise_power")
    share = np.array([over_seeds(s) for s in (power / (power + noise)).mean(1)])
    r = np.array([over_seeds(s) for s in halves(data, "plane", 512).mean(1)])
    above, below = share[:, 1] > claim["obscure"], share[:, 2] < claim["obscure"]
    rows = {f"share, {s}": tuple(row) for s, row in zip(SCHEMES, share)}
    rows |= {f"r, {s}": tuple(row) for s, row in zip(SCHEMES, r)}
    obscure = above[0] and below[1:].sum() >= 3
    not_obscure = below[0] or above[1:].sum() >= 2
    revealed, hidden = (r[:, 1] > claim["revealed"]).all(), (r[:, 2] < claim["revealed"]).any()
    return verdict(obscure and revealed, not_obscure or hidden), listed(rows)


def first_c5(data: Path):
    sizes, rows = (8, 32, 128, 512), own(data, "growth")
    # Open: both halves of the plane give the share; their mean is taken. The slope is one against
    # log2 of the number, per doubling.
    axes = {"scheme": SCHEMES, "seed": OLD, "n": sizes, "layer": LAYERS, "half": (0, 1)}
    share = block(rows, "separated", **axes).mean((3, 4))
    found = growth(share, sizes, 0.95)
    bar = numbers(data, "C5")["threshold"]
    slopes, values = ([found[f"{part}, {s}"] for s in SCHEMES] for part in ("slope", "value"))
    rises = all(r[1] > 0 for r in slopes) and all(r[1] > bar for r in values)
    falls = any(r[2] < 0 for r in slopes) or any(r[2] < bar for r in values)
    return verdict(rises, falls), listed(found)


def growth(share: np.ndarray, sizes, level: float) -> dict:
    """Return the last value and the slope per doubling of scheme x seed x size."""
    log = np.log2(sizes) - np.log2(sizes).mean()
    slope = share @ log / (log @ log)
    rows = {f"value, {s}": over_seeds(v, level) for s, v in zip(SCHEMES, share[:, :, -1])}
    return rows | {f"slope, {s}": over_seeds(v, level) for s, v in zip(SCHEMES, slope)}


def first_c7(data: Path):
    (low,) = on_photographs(data, "power_low")
    layers = (low[-1] > 0).sum(0)
    row, bar = over_seeds(halves(data, "photographs", 256)[-1].mean(0)), 0.5
    bar = numbers(data, "C7")["threshold"]
    rows = {"r": row} | {f"layers, seed {s}": (n, n, n) for s, n in zip(OLD, layers)}
    many = layers >= 3
    return verdict(all(many) and row[1] > bar, many.sum() < 3 or row[2] < bar), listed(rows)


# --------------------------------------------- photographs and scenes, amended: C3, C4, C5, C7


@cache
def photographs(data: Path, state: str, padding: str, scheme: str) -> list:
    """Return for each seed and layer the products, windows, spreads, means of 37 photographs."""
    found = []
    chosen = {"state": state, "padding": padding, "scheme": scheme}
    tables = {}
    for name in ("metrics", "pictures", "products"):
        rows = table(data, f"evidence/{name}")
        for column, value in chosen.items():
            rows = rows[rows[column] == value]
        tables[name] = dict(list(rows.groupby(["seed", "layer"])))
    for seed in OLD:
        for layer in LAYERS:
            pictures = tables["pictures"][seed, layer].set_index("number").sort_index()
            pairs = tables["products"][seed, layer]
            g = np.full((len(pictures),) * 2, np.nan)
            g[pairs["first"], pairs["second"]] = g[pairs["second"], pairs["first"]] = pairs["value"]
            kept = (pictures["set"] == "debian").to_numpy()
            (reached,) = tables["metrics"][seed, layer]["influenced"]
            columns = (pictures[c].to_numpy(float)[kept] for c in ("n", "spread", "mean"))
            found.append((g[np.ix_(kept, kept)], *columns, reached))
    return found


def powers(g, n, spread) -> tuple[float, float]:
    """Return P and V of some photographs."""
    k, total = len(n), n.sum()
    power = (g.sum() - np.trace(g)) / (k * (k - 1))
    between = n @ np.diag(g) - n @ g @ n / total
    return power, (spread.sum() + between) / (total - 1)


def without_each(k: int) -> np.ndarray:
    """Return masks of all photographs, and of all but one each."""
    return np.vstack([np.ones(k, bool), ~np.eye(k, dtype=bool)])


def shares(data: Path, *which: str) -> np.ndarray:
    """Return P / (P + V), mean over layers: all photographs or one left out x network."""
    found = []
    for g, n, spread, _, _ in photographs(data, *which):
        masks = without_each(len(n))
        pairs = np.array([powers(g[np.ix_(m, m)], n[m], spread[m]) for m in masks])
        found.append(pairs[:, 0] / pairs.sum(1))
    return np.transpose(found).reshape(len(masks), len(OLD), len(LAYERS)).mean(2)


def correlations(data: Path, *which: str) -> np.ndarray:
    """Return the correlation of two halves, mean over divisions and layers; as :func:`shares`."""
    draw, found = np.random.default_rng(SEED), []
    for g, _, _, mean, reached in photographs(data, *which):
        k = len(g)
        # Open: an odd number is divided into halves that differ by one. Where a photograph is left
        # out, the divisions stay and lose it, so that no new draws blur the jackknife.
        if not found:
            sides = np.argsort(draw.random((DIVISIONS, k)), 1) < k // 2
        halves_ = sides[None] & without_each(k)[:, None], ~sides[None] & without_each(k)[:, None]
        a, b = (half / half.sum(-1, keepdims=True) for half in halves_)
        # Products and means are over all cells; those that padding cannot touch hold zeros.
        within, centre = g / reached, mean / reached
        ag, ma, mb = a @ within, a @ centre, b @ centre
        both = (ag * b).sum(-1) - ma * mb
        spread = ((ag * a).sum(-1) - ma**2) * ((b @ within * b).sum(-1) - mb**2)
        found.append((both / np.sqrt(spread)).mean(1))
    return np.transpose(found).reshape(k + 1, len(OLD), len(LAYERS)).mean(2)


@cache
def gate(data: Path) -> dict[str, int]:
    """Return in how many layers each scheme passes the sign-flip test."""
    draw, p = np.random.default_rng(SEED), []
    for scheme in SCHEMES:
        of_networks = []
        for g, *_ in photographs(data, "trained", scheme, scheme):
            signs = draw.choice([-1.0, 1.0], (DRAWS, len(g)))
            flipped = (signs @ g * signs).sum(1)
            reached = (flipped >= g.sum() - 1e-9 * abs(g).sum()).sum()
            of_networks.append((1 + reached) / (1 + DRAWS))
        p.append(np.reshape(of_networks, (len(OLD), len(LAYERS))))
    pairs = np.minimum(2 * np.median(p, axis=1), 1)
    passed = holm(pairs.ravel()).reshape(pairs.shape) < 0.05
    return dict(zip(SCHEMES, passed.sum(1)))


def gated(data: Path, scheme: str, row, delta: float) -> tuple:
    layers, side = gate(data)[scheme], grade(row, delta)
    if not layers:
        side = AGAINST
    elif side == SUPPORTED and layers < 3:
        side = UNDERPOWERED
    return (*row, side)


def r_and_share(data: Path, scheme: str, deltas: dict) -> dict:
    which = "trained", scheme, scheme
    found = {"r": (correlations, deltas["delta"]), "share": (shares, deltas["delta_share"])}
    return {
        f"{name}, {scheme}": gated(data, scheme, two_way(f(data, *which), FAMILY_OF_FIVE), delta)
        for name, (f, delta) in found.items()
    }


def grade_c3(data: Path):
    deltas, rows = numbers(data, "C3")["amended"], {}
    for scheme in SCHEMES:
        rows |= r_and_share(data, scheme, deltas)
    return graded(rows)


def grade_c7(data: Path):
    deltas = numbers(data, "C7")["amended"]
    rows = r_and_share(data, "randn", deltas)
    excess = shares(data, "trained", "randn", "randn") - shares(data, "initial", "optimal", "randn")
    # Open: the level is C3's, and the gate holds for all three rows.
    row = two_way(excess, FAMILY_OF_FIVE)
    return graded(rows | {"excess, randn": gated(data, "randn", row, deltas["delta_excess"])})


def visibility(data: Path, scheme: str, version: str, n: int):
    rows = table(data, "evidence/visibility")
    rows = rows[(rows["state"] == "trained") & (rows["scheme"] == scheme)]
    rows = rows[(rows["version"] == version) & (rows["n"] == n)].fillna({"without": ""})
    left_out = sorted(rows["without"].unique())  # "" comes first: none
    return block(rows, "area", without=left_out, seed=OLD, layer=LAYERS).mean(2)


def grade_c4(data: Path):
    deltas, rows = numbers(data, "C4")["amended"], {}
    versions = ("all channels", "channel mean")
    for scheme in SCHEMES:
        for version in versions[scheme == "zeros" :]:
            row = two_way(visibility(data, scheme, version, 1), FAMILY_OF_FIVE)
            below = AGAINST if scheme == "zeros" else SUPPORTED
            rows[f"1, {version}, {scheme}"] = (*row, grade(row, deltas["delta"], NOT_EVALUABLE, below))
    # Open: "the same" of 64 maps is both versions; the correlation, too, has C4's level here.
    for scheme, r in zip(SCHEMES, halves(data, "plane", 512).mean(1)):
        found = {
            f"64, {v}": two_way(visibility(data, scheme, v, 64), FAMILY_OF_FIVE) for v in versions
        }
        for name, row in (found | {"r": over_seeds(r, FAMILY_OF_FIVE)}).items():
            rows[f"{name}, {scheme}"] = (*row, grade(row, deltas["delta_revealed"]))
    return graded(rows)


def grade_c5(data: Path):
    deltas, rows = numbers(data, "C5")["amended"], table(data, "evidence/scenes")
    rows = rows[rows["state"] == "trained"].assign(excess=rows["separated"] - rows["control"])
    sizes = (8, 32, 128, 512, 2048, 8192)
    axes = {"scheme": SCHEMES, "seed": OLD, "n": sizes, "layer": LAYERS}
    found = growth(block(rows, "excess", **axes).mean(3), sizes, FAMILY_OF_FIVE)
    bars = {"value": deltas["delta"], "slope": deltas["delta_slope"]}
    return graded({k: (*row, grade(row, bars[k.split(",")[0]])) for k, row in found.items()})


# --------------------------------------------------------------------- dynamics: C8 to C11


@cache
def trajectories(data: Path) -> pd.DataFrame:
    rows = table(data, "dynamics/trajectories")
    rows = rows[rows["layer"].notna() & rows["metric"].isin([*STRENGTHS, "raw"])]
    names = ["batch_norm", "metric", "padding", "test_padding", "step", "seed", "layer"]
    return rows.set_index(names)["value"].sort_index()


def curve(data: Path, seeds, metric, scheme, trained=None, statistics="re-estimated"):
    """Return steps, and the metric as step x seed x layer."""
    # Per influenced cell each layer has a factor of its own, which cancels in every ratio here.
    found = trajectories(data).loc[statistics, metric, trained or scheme, scheme]
    found = found[found.index.get_level_values("seed").isin(seeds)]
    steps = found.index.get_level_values("step").unique().to_numpy()
    rows = found.rename("value").reset_index()
    return steps, block(rows, "value", step=steps, seed=list(seeds), layer=LAYERS)


def last(data: Path, seeds, metric: str, scheme: str):
    steps, values = curve(data, seeds, metric, scheme)
    return steps, values[:, :, -1]


def final_and_initial(data: Path, seeds, metric, scheme, trained=None, statistics="re-estimated"):
    """Return log2 of the first and the last value, mean over layers, by seed."""
    _, values = curve(data, seeds, metric, scheme, trained, statistics)
    return np.log2(values[[-1, 0]]).mean(2)


def half_time(steps: np.ndarray, values: np.ndarray) -> float:
    """Return log2(1 + step) after which the values stay at or above half of the last one."""
    below = np.flatnonzero(values < values[-1] / 2)
    place = np.log2(1 + steps)
    if not len(below):
        return 0.0
    i = below[-1]
    # Open: an excess that ends below 0 never stays above its half: all steps.
    if i == len(values) - 1:
        return place[-1]
    return np.interp(values[-1] / 2, values[i : i + 2], place[i : i + 2])


def rows_of(schemes=SCHEMES, names=STRENGTHS):
    return [(scheme, name) for scheme in schemes for name in names]


def in_steps(row) -> tuple:
    return tuple(2 ** np.array(row) - 1)


def first_c8(data: Path):
    rows = {}
    for scheme, metric in rows_of():
        steps, values = last(data, OLD, metric, scheme)
        times = [half_time(steps, one) for one in values.T]
        rows[f"{metric}, {scheme}"] = in_steps(over_seeds(times))
    bar = numbers(data, "C8")["threshold"] * steps[-1]
    bounds = rows.values()
    return verdict(all(r[2] < bar for r in bounds), any(r[1] > bar for r in bounds)), listed(rows)


def excess(data: Path, metric: str, scheme: str):
    steps, values = last(data, NEW, metric, scheme)
    return steps, values - values[0]


def grade_c8(data: Path):
    delta, rows = numbers(data, "C8")["amended"]["delta"], {}
    for scheme, metric in rows_of():
        steps, values = excess(data, metric, scheme)
        _, low, high = over_seeds(values[-1])
        row = in_steps(over_seeds([half_time(steps, one) for one in values.T]))
        side = grade(row, delta * steps[-1], AGAINST, SUPPORTED)
        rows[f"{metric}, {scheme}"] = (*row, NOT_EVALUABLE if low <= 0 <= high else side)
    return graded(rows)


def significant(samples: dict) -> tuple[dict, list[int]]:
    """Return means with intervals, and the sign of each that Holm's correction leaves."""
    rows = {name: over_seeds(sample) for name, sample in samples.items()}
    adjusted = holm([ttest_1samp(sample, 0).pvalue for sample in samples.values()])
    signs = [np.sign(row[0]) * (p < 0.05) for row, p in zip(rows.values(), adjusted)]
    return rows, signs


def signs_decide(samples: dict):
    rows, signs = significant(samples)
    return verdict(min(signs) > 0, min(signs) < 0), listed(rows)


def first_c9(data: Path):
    start, samples = numbers(data, "C9")["first_step"], {}
    for scheme, metric in rows_of():
        steps, values = last(data, OLD, metric, scheme)
        later = steps >= start
        fit = np.polyfit(np.log2(steps[later]), np.log2(values[later]), 1)
        samples[f"{metric}, {scheme}"] = fit[0]
    return signs_decide(samples)


def grade_c9(data: Path):
    amended, rows = numbers(data, "C9")["amended"], {}
    for scheme, metric in rows_of():
        steps, values = excess(data, metric, scheme)
        early, late = values[steps == amended["first_step"]][0], values[-1]

        def ratio(seeds, early=early, late=late):
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.log2(late[seeds].mean() / early[seeds].mean())

        # Open: bias-corrected, as METHOD centres a jackknife; 95 % for "covers 0", as in C8.
        row = jackknife(ratio, len(NEW), FAMILY_OF_FIVE, corrected=True)
        _, low, high = over_seeds(late)
        undefined = low <= 0 <= high or not np.isfinite(row).all()
        side = NOT_EVALUABLE if undefined else grade(row, amended["delta"])
        rows[f"{metric}, {scheme}"] = (*row, side)
    return graded(rows)


def first_c10(data: Path):
    samples = {}
    for statistics in ("running", "re-estimated"):
        for scheme, metric in rows_of():
            final, initial = final_and_initial(data, OLD, metric, scheme, None, statistics)
            samples[f"{metric}, {scheme}, {statistics}"] = final - initial
    return signs_decide(samples)


def grade_c10(data: Path):
    delta, rows = numbers(data, "C10")["amended"]["delta"], {}
    for scheme, metric in rows_of(names=["mae", "raw", "snr"]):
        final, initial = final_and_initial(data, NEW, metric, scheme)
        row = over_seeds(final - initial, FAMILY_OF_FIVE)
        rows[f"{metric}, {scheme}"] = (*row, grade(row, delta))
    return graded(rows)


def dependence(data: Path, seeds, metric: str, corrected: bool):
    """Return part (a) of C11: spread over schemes against the change by learning."""
    both = np.array([final_and_initial(data, seeds, metric, scheme) for scheme in SCHEMES])

    def log_ratio(kept):
        final, initial = both[:, 0, kept].mean(1), both[:, 1, kept].mean(1)
        # Open: a standard deviation of five schemes as a sample, divided by four.
        return np.log2(final.std(ddof=1) / np.sqrt(((final - initial) ** 2).mean()))

    return tuple(2 ** np.array(jackknife(log_ratio, len(seeds), corrected=corrected)))


def over_control(data: Path, seeds, metric: str, scheme: str, control: str) -> np.ndarray:
    under = [final_and_initial(data, seeds, metric, scheme, p)[0] for p in (scheme, control)]
    return under[0] - under[1]


def first_c11(data: Path):
    a = {f"a, {metric}": dependence(data, OLD, metric, False) for metric in STRENGTHS}
    samples = {
        f"b, {m}, {s}": over_control(data, OLD, m, s, "optimal") for s, m in rows_of()
    }
    b, signs = significant(samples)
    reproduced = all(row[2] < 1 for row in a.values()) and min(signs) > 0
    against = any(row[1] > 1 for row in a.values()) or min(signs) < 0
    return verdict(reproduced, against), listed(a | b)


def trained_share(y: np.ndarray) -> float:
    """Return the share of training and of its match with testing, of train x test x seed."""
    # Open: "match" is read as the interaction of the two schemes. Components by the method of
    # moments, schemes and seeds random; a negative one counts as 0.
    (a, b, n), squares = y.shape, {}
    centred = y - y.mean()
    for axes in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        effect = centred.mean(tuple({0, 1, 2} - set(axes)), keepdims=True)
        for k in range(1, len(axes)):
            for part in combinations(axes, k):
                effect = effect - squares[part][1]
        freedom = np.prod([y.shape[axis] - 1 for axis in axes])
        reps = y.size / effect.size
        squares[axes] = reps * (effect**2).sum() / freedom, effect
    train, test, both, train_seed, test_seed, left = (
        squares[axes][0] for axes in [(0,), (1,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    )
    learnt = max(0, (train - both - train_seed + left) / (b * n)) + max(0, (both - left) / n)
    return learnt / (learnt + max(0, (test - both - test_seed + left) / (a * n)))


def grade_c11(data: Path):
    deltas, rows = numbers(data, "C11")["amended"], {}
    for metric in STRENGTHS:
        row = dependence(data, NEW, metric, True)
        rows[f"a, {metric}"] = (*row, grade(row, deltas["delta"], AGAINST, SUPPORTED))
    crossed = [
        [final_and_initial(data, NEW, "mae", test, train)[0] for test in SCHEMES]
        for train in SCHEMES
    ]
    y = np.array(crossed)
    row = jackknife(lambda seeds: trained_share(y[..., seeds]), len(NEW), corrected=True)
    rows["b, mae"] = (*row, grade(row, deltas["delta_share"]))
    # Open: "a network's metric" in (c) is each of the two, as everywhere in C8 to C11.
    for metric in STRENGTHS:
        ratios = [over_control(data, NEW, metric, scheme, "mixed") for scheme in SCHEMES]
        row = over_seeds(np.mean(ratios, 0))
        rows[f"c, {metric}"] = (*row, grade(row, deltas["delta_ratio"]))
    return graded(rows)


# ----------------------------------------------------------------------------------- report

CLAIMS = [f"C{number}" for number in range(1, 12)]


def first(claim: str, data: str | Path) -> tuple[str, pd.DataFrame]:
    """Return the verdict of a claim's first test, and its rows: value, low, high."""
    return globals()[f"first_{claim.lower()}"](Path(data))


def amended(claim: str, data: str | Path) -> tuple[str, pd.DataFrame]:
    """Return the grade of a claim's amended test, and its rows: value, low, high, grade."""
    return globals()[f"grade_{claim.lower()}"](Path(data))


if __name__ == "__main__":
    folder = Path(*sys.argv[1:2] or ["data"])
    for kind in (first, amended):
        for claim in CLAIMS:
            outcome, found = kind(claim, folder)
            print(f"\n{claim} {kind.__name__}: {outcome}\n{found.round(4).to_string()}")
