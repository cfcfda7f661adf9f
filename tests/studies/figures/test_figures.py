"""Figures: what they draw, what their alt text says, how they are shown and saved."""

import base64
import html as html_module
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from checks import refused
from PIL import Image
from scipy import stats
from skimage.color import deltaE_ciede2000, rgb2lab

from ppp.errors import PPPError
from studies import figures
from studies.figures import dark, page


@pytest.mark.parametrize("module", ["evidence.grades", "figures.turntable", "sweeps.tables"])
def test_a_backend_that_matplotlib_lacks_is_refused_in_one_line(module):
    code = f"from ppp.errors import PPPError\ntry: import studies.{module}\n"
    code += "except PPPError as error: print(error)"
    words = {"capture_output": True, "text": True, "env": os.environ | {"MPLBACKEND": "bad"}}
    done = subprocess.run([sys.executable, "-c", code], **words)
    assert not done.stderr and done.stdout.count("\n") == 1 and "MPLBACKEND" in done.stdout


def numbers(text):
    return [float(x) for x in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)]


@pytest.fixture
def long():
    rows = [
        (name, n, level + 1 / n, level + 0.9 / n, level + 1.1 / n, 0.5 / n)
        for name, level in [("zeros", 0.75), ("randn", 0.125)]
        for n in (64, 1, 16, 4096)  # not in order
    ]
    return pd.DataFrame(rows, columns=["padding", "n", "snr", "lo", "hi", "floor"])


@pytest.fixture
def runs():
    """Two paddings, three seeds, two layers; every value another power of two."""
    generator = np.random.default_rng(0)
    keys = [
        (padding, seed, layer, step)
        for padding in ("zeros", "randn")
        for seed in (7, 8, 9)
        for layer in ("stem", "layer1")
        for step in (64, 0, 4, 1280)  # not in order
    ]
    frame = pd.DataFrame(keys, columns=["padding", "seed", "layer", "step"])
    return frame.assign(mae=2.0 ** -generator.permutation(len(frame)), floor=0.0625)


def every_figure(long, runs):
    ramp = np.linspace(0, 1, 49).reshape(7, 7)
    touched = np.ones((7, 7), dtype=bool)
    touched[3, 3] = False
    wide = long.pivot(index="padding", columns="n", values="snr")
    last = long[long.n == 4096]
    ends = runs[(runs.layer == "stem") & runs.step.isin([0, 1280])]
    return {
        "growth_maps": figures.growth_maps({("zeros", 0): ramp}, label="PPP"),
        "bands": figures.bands(
            runs,
            "step",
            "mae",
            "padding",
            unit="seed",
            col="layer",
            logx=True,
            logy=True,
            floor="floor",
            marks={"epoch": 32},
            live=runs[runs.seed == 7],
        ),
        "paired": figures.paired(ends, "step", "mae", "seed", "padding", logy=True),
        "strips": figures.strips(
            runs[runs.step == 4], "layer", "mae", "padding", unit="seed", references={"a": ends[:1]}
        ),
        "gallery": figures.gallery({"map": ramp}, colorbar_label="value"),
        "surfaces": figures.surfaces([0 * ramp], [ramp], ["n = 1"], label="magnitude"),
        "influence_maps": figures.influence_maps({"layer3": touched}, {"layer3": 1 / 49}),
        "curves": figures.curves(long, "n", "snr", "padding", low="lo", high="hi", floor="floor"),
        "forest": figures.forest(last, "padding", "snr", "lo", "hi", floor="floor"),
        "heatmap": figures.heatmap(wide, label="SNR"),
    }


# ---------------------------------------------------------------- all of them


def test_every_figure_is_described_styled_and_outside_pyplot(long, runs, tmp_path):
    before = dict(matplotlib.rcParams)
    made = every_figure(long, runs)
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    for name, fig in made.items():
        assert fig.ppp_alt.endswith(".") and "\n" not in fig.ppp_alt, name
        assert "nan" not in fig.ppp_alt.lower() and numbers(fig.ppp_alt), name
        assert fig.get_facecolor() == (1, 1, 1, 1), name
        assert fig.get_figwidth() <= 10, name
        figures.save(fig, tmp_path / f"{name}.png")


def test_look_does_not_depend_on_the_callers_settings(long, tmp_path):
    first = figures.save(figures.curves(long, "n", "snr", "padding"), tmp_path / "a.png")
    with plt.style.context("dark_background"):
        matplotlib.rcParams["font.size"] = 30
        second = figures.save(figures.curves(long, "n", "snr", "padding"), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()


def test_use_style():
    with matplotlib.rc_context():
        figures.use_style()
        assert matplotlib.rcParams["savefig.dpi"] == 160
        assert matplotlib.rcParams["figure.facecolor"] == "white"
        assert matplotlib.rcParams["figure.constrained_layout.use"]
        assert matplotlib.rcParams["font.size"] >= 10


# Machado, Oliveira, Fernandes 2009, severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanope": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(rgb, matrix):
    light = np.clip(linear(rgb) @ np.asarray(matrix).T, 0, 1)
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return rgb2lab(encoded)


@pytest.mark.parametrize("vision", VISION)
def test_palettes_are_safe_for_the_colour_blind(vision):
    for palette in (figures.PALETTE, dark.DARK):
        rgb = np.array([matplotlib.colors.to_rgb(c) for c in palette])
        lab = seen(rgb, VISION[vision])
        distances = [deltaE_ciede2000(a, b) for a, b in combinations(lab, 2)]
        assert len(rgb) == 8 and min(distances) >= 10
    pair = seen(
        np.array([matplotlib.colors.to_rgb(c) for c in (figures.CLEAN, figures.TOUCHED)]),
        VISION[vision],
    )
    assert deltaE_ciede2000(*pair) >= 35


def luminance(colours):
    return linear(np.array([matplotlib.colors.to_rgb(c) for c in colours])) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def test_palettes_stand_out_from_the_page():
    assert (1.05 / (luminance(figures.PALETTE) + 0.05)).min() >= 2
    assert ((luminance(dark.DARK) + 0.05) / (luminance([dark.PAGE]) + 0.05)).min() >= 4
    assert len(set(figures.MARKERS)) == len(figures.MARKERS) > len(figures.PALETTE)


# ---------------------------------------------------------------- dark pages


def test_on_a_dark_page_every_figure_can_be_read_and_is_the_same_otherwise(long, runs):
    """What was dark on white is light now, on the page's own colour."""
    for name, fig in every_figure(long, runs).items():
        white, black = (
            np.asarray(Image.open(io.BytesIO(page._png(fig, kind))).convert("RGB")) / 255
            for kind in (False, True)
        )
        assert white.shape == black.shape, name
        around = np.array(matplotlib.colors.to_rgb(dark.PAGE))
        assert (white[0, 0] == 1).all() and np.abs(black[0, 0] - around).max() < 0.01, name
        level = {"white": white.mean(2), "dark": black.mean(2)}
        text = level["white"] < 0.1
        if name not in ("gallery", "heatmap", "growth_maps", "surfaces"):  # with dark colours
            assert np.median(level["dark"][text]) > 0.6, name
    fig = figures.curves(long, "n", "snr", "padding")
    figures.as_html(fig, "caption")
    assert fig.axes[0].lines[0].get_color() == figures.PALETTE[0], "the figure keeps its colours"


def test_a_drawing_is_reduced_and_a_photograph_only_on_dark_pages(long):
    noise = np.random.default_rng(0).random((200, 200, 3))
    for fig, light_too in (
        (figures.curves(long, "n", "snr", "padding"), True),
        (figures.gallery({"a": noise}), False),
    ):
        found = re.findall(r"base64,([^\"]*)", figures.as_html(fig, "caption"))
        for data, kind in zip(found, (False, True), strict=True):
            exact, shown = page._png(fig, kind), base64.b64decode(data)
            before, after = (Image.open(io.BytesIO(png)).convert("RGB") for png in (exact, shown))
            if not (kind or light_too):
                assert shown == exact
                continue
            assert len(shown) < (0.6 if light_too else 0.95) * len(exact)
            assert len(after.getcolors(1 << 24)) <= 256
            blurred = [np.asarray(one.resize((40, 40), Image.Resampling.BOX), float)
                       for one in (before, after)]  # fmt: skip
            assert np.abs(np.subtract(*blurred)).mean() < 2, "from afar it is the same"


def test_text_on_a_map_keeps_its_colour(long):
    wide = long.pivot(index="padding", columns="n", values="snr")
    before = [text.get_color() for text in figures.heatmap(wide, label="SNR").axes[0].texts]
    fig = dark.darken(figures.heatmap(wide, label="SNR"))
    assert [text.get_color() for text in fig.axes[0].texts] == before and before
    assert luminance([fig.axes[0].xaxis.label.get_color()]) > 0.5
    assert luminance([tick.get_color() for tick in fig.axes[0].get_xticklabels()]).min() > 0.5


def test_a_map_of_kinds_keeps_the_colours_of_its_legend():
    touched = np.eye(4, dtype=bool)
    fig = dark.darken(figures.influence_maps({"a": touched}, {"a": 0.75}))
    shown = {matplotlib.colors.to_hex(c) for c in fig.axes[0].images[0].cmap.colors}
    keys = {matplotlib.colors.to_hex(p.get_facecolor()) for p in fig.legends[0].get_patches()}
    assert shown == keys == {dark.DARK[0], dark.DARK[1]}


def test_a_long_alt_text_is_cut_between_parts_and_whole_in_the_footer(runs):
    fig = figures.bands(runs, "step", "mae", "padding", unit="seed", col="layer")
    assert len(fig.ppp_alt) > 300
    html = figures.as_html(fig, "caption")
    alts = re.findall(r'alt="([^"]*)"', html)
    assert len(alts) == 2 and alts[0] == alts[1] and 100 < len(alts[0]) <= 300
    start, _, more = alts[0].partition(" ... ")
    assert (
        more == "More below." and fig.ppp_alt[len(start)] in ";." and fig.ppp_alt.startswith(start)
    )
    assert fig.ppp_alt in html_module.unescape(html.partition("<details>")[2])
    fig.ppp_alt = "word " * 200
    assert len(re.findall(r'alt="([^"]*)"', figures.as_html(fig, "c"))[0]) <= 300
    fig.ppp_alt = "Short."
    html = figures.as_html(fig, "c")
    assert 'alt="Short."' in html and "<details>" not in html


# ---------------------------------------------------------------- gallery


def test_gallery_draws_values_and_nan():
    field = np.array([[0.5, np.nan], [-2.0, 8.0]])
    picture = np.full((2, 3, 3), 0.25)
    picture[0, 0] = np.nan
    picture[1, 1] = 7.0
    fig = figures.gallery({"field": field, "picture": picture}, colorbar_label="degrees")
    assert "field: 2 x 2, degrees -2 to 8, mean 2.17, 25% of the cells NaN" in fig.ppp_alt
    assert "picture: 2 x 3, mean brightness 1.6, 17% of the cells NaN" in fig.ppp_alt
    left, right = (ax.images[0] for ax in fig.axes[:2])
    assert (left.norm.vmin, left.norm.vmax) == (-2, 8)
    drawn = np.asarray(right.get_array())
    assert drawn[0, 0].tolist() == [191 / 255] * 3 and drawn[1, 1].tolist() == [1, 1, 1]
    assert fig.axes[2].get_ylabel() == "degrees"


def test_gallery_scales_and_layout():
    maps = {str(i): np.eye(3) * i for i in range(1, 6)}
    shared = figures.gallery(maps, columns=2, colorbar_label="v")
    assert {ax.images[0].norm.vmax for ax in shared.axes[:5]} == {5}
    assert len(shared.axes) == 6 + 1 and not shared.axes[5].axison
    own = figures.gallery(maps, columns=2, colorbar_label="v", shared_scale=False)
    assert [ax.images[0].norm.vmax for ax in own.axes[:5]] == [1, 2, 3, 4, 5]
    assert len(figures.gallery(maps).axes) == 8  # four columns, no colour bar


def test_gallery_outline_frames_the_true_picture():
    fig = figures.gallery({"zeros": np.zeros((10, 12, 3))}, outline=(2, 3, 6, 5))
    for box in fig.axes[0].patches:
        assert box.get_bbox().bounds == (2.5, 1.5, 5, 6)
    assert "a frame around 6 x 5 pixels" in fig.ppp_alt


@pytest.mark.parametrize("images", [{}, {"a": np.zeros((3, 8, 8))}, {"a": np.zeros((0, 4))}])
def test_gallery_and_growth_maps_refuse(images):
    refused(figures.gallery, images)
    refused(figures.growth_maps, {("zeros", name): a for name, a in images.items()}, label="PPP")


# ---------------------------------------------------------------- surfaces


def test_surfaces_draw_both_and_say_their_numbers(tmp_path):
    strong = np.full((6, 5), 0.25)
    strong[[0, -1]] = strong[:, [0, -1]] = 4.0
    optimal = [np.full((6, 5), 0.5), np.full((6, 5), 6.0)]
    fig = figures.surfaces(optimal, [strong, strong / 2], ["n = 1", "n = 99"], label="PPP")
    mean = f"{strong.mean():.3g}"
    assert f"n = 1: pattern {mean} (border 4, interior 0.25, highest 4)" in fig.ppp_alt
    assert "noise floor 0.5 (highest 0.5); n = 99:" in fig.ppp_alt
    tilted = [ax for ax in fig.axes if ax.name == "3d"]
    flat = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in tilted] == ["n = 1", "n = 99"]
    assert [(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in flat] == [(0, 4), (0, 2)]
    # both surfaces fit; the colours are the second's
    assert [ax.get_zlim()[1] for ax in tilted] == [4, 6]
    np.testing.assert_array_equal(flat[1].images[0].get_array(), strong / 2)
    colours = tilted[0].collections[0].get_facecolor()
    assert len(colours) == 2 * 5 * 4
    grey = (np.ptp(colours[:, :3], axis=1) == 0).sum()
    assert grey == 5 * 4  # the optimal surface, the other in colour
    figures.save(fig, tmp_path / "surfaces.png")


def test_surfaces_refuse():
    a = np.zeros((4, 4))
    for optimal, algorithmic, titles in [
        ([a], [a], ["x", "y"]),
        ([a], [np.zeros((4, 5))], ["x"]),
        ([a[None]], [a[None]], ["x"]),
        ([], [], []),
    ]:
        assert "expected" in refused(figures.surfaces, optimal, algorithmic, titles, label="m")


# ---------------------------------------------------------------- influence maps


def test_influence_maps_show_touched_cells_and_count_them():
    small = np.ones((14, 14), dtype=bool)
    small[6:8, 6:8] = False
    large = np.zeros((112, 112), dtype=bool)
    large[:3] = True
    clean = {"layer3": 4 / 196, "stem": 109 / 112}
    fig = figures.influence_maps({"layer3": small, "stem": large}, clean)
    assert "layer3: 192 of 14 x 14 cells touched, 4 clean (2.04 %)" in fig.ppp_alt
    assert "stem: 336 of 112 x 112 cells touched, 12208 clean (97.3 %)" in fig.ppp_alt
    left, right = fig.axes
    shown = left.images[0].cmap(left.images[0].norm(left.images[0].get_array()))
    assert matplotlib.colors.to_hex(shown[0, 0]) == figures.TOUCHED.lower()
    assert matplotlib.colors.to_hex(shown[6, 6]) == figures.CLEAN.lower()
    assert left.collections and not right.collections  # the grid, where cells are large enough
    assert [t.get_text() for t in fig.legends[0].texts] == ["padding can touch it", "clean"]


def test_influence_maps_refuse_the_opposite_convention():
    touched = np.ones((4, 4), dtype=bool)
    touched[0, 0] = False
    assert "expected 0.9375" in refused(
        figures.influence_maps, {"layer1": ~touched}, {"layer1": 1 / 16}
    )
    assert "did you mean 'layer1'" in refused(
        figures.influence_maps, {"layer2": touched}, {"layer1": 1 / 16}
    )


# ---------------------------------------------------------------- curves, forest, heat map


def test_curves(long):
    fig = figures.curves(
        long, "n", "snr", "padding", low="lo", high="hi", logx=True, floor="floor", ylabel="SNR"
    )
    ax = fig.axes[0]
    assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("n", "SNR")
    line = next(x for x in ax.lines if x.get_label() == "randn")
    assert line.get_xdata().tolist() == [1, 16, 64, 4096]
    assert line.get_ydata()[0] == 1.125
    assert sum(x.get_linestyle() == "--" for x in ax.lines) == 2
    assert len(ax.collections) == 2
    band = ax.collections[0].get_paths()[0].vertices
    assert (1, 0.75 + 0.9) in {tuple(v) for v in band}
    texts = [t.get_text() for t in fig.legends[0].texts]
    assert texts == ["zeros", "randn", "noise floor"]
    assert "zeros: 1.75 [1.65, 1.85] at 1, 0.75 [0.75, 0.75] at 4096" in fig.ppp_alt
    assert "(noise floor 0.000122)" in fig.ppp_alt


def test_curves_without_hue_and_with_more_lines_than_colours(long):
    fig = figures.curves(long[long.padding == "zeros"], "n", "snr")
    assert not fig.legends and fig.ppp_alt.startswith("1 line of snr against n. 1.75 at 1")
    many = pd.concat([long.assign(padding=str(i)) for i in range(10)])
    lines = figures.curves(many, "n", "snr", "padding").axes[0].lines
    assert len({(x.get_color(), x.get_marker()) for x in lines}) == 10


def test_forest():
    frame = pd.DataFrame(
        {
            "layer": ["stem", "layer1", "stem", "layer1"],
            "state": ["raw", "raw", "trained", "trained"],
            "v": [0.5, 2.0, 0.25, 8.0],
            "lo": [0.25, 1.5, -0.125, 4.0],
            "hi": [1.0, 3.0, 0.75, 16.0],
            "floor": [0.0625] * 4,
        }
    )
    fig = figures.forest(
        frame, "layer", "v", "lo", "hi", group="state", floor="floor", logx=True, reference=1
    )
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["stem", "layer1"]
    assert ax.yaxis_inverted() and ax.get_xscale() == "log"
    raw = next(x for x in ax.lines if x.get_label() == "raw")
    assert raw.get_xdata().tolist() == [0.5, 2.0]
    assert raw.get_ydata().tolist() == pytest.approx([-0.175, 0.825])
    assert ax.get_xlim() == pytest.approx((0.0625 / 1.3, 16 * 1.3))
    assert "stem, trained: 0.25 [-0.125, 0.75], noise floor 0.0625" in fig.ppp_alt
    assert "and a line at 1" in fig.ppp_alt
    texts = [t.get_text() for t in fig.legends[0].texts]
    assert texts == ["raw", "trained", "noise floor"]


def test_predictions_have_dots_a_line_and_an_axis_for_each_panel():
    frame = pd.DataFrame(
        {"of": ["n", "n", "side"], "x": [64, 8, 640], "s": [4.0, 0.5, 1.0], "p": [8.0, 0.25, 2.0]}
    )
    live = frame[:1].assign(s=3.0)
    fig = figures.predictions(frame, "x", "s", "p", col="of", live=live, ylabel="ratio")
    first, second = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["n", "side"]
    dots, line, now = first.lines
    assert dots.get_linestyle() == "None" and dots.get_xdata().tolist() == [8, 64]
    assert dots.get_ydata().tolist() == [0.5, 4] and line.get_ydata().tolist() == [0.25, 8]
    assert now.get_ydata().tolist() == [3] and second.lines[2].get_ydata().tolist() == []
    assert first.get_xlim() != second.get_xlim() and first.get_ylim() == second.get_ylim()
    assert first.get_xscale() == first.get_yscale() == "log"
    assert [t.get_text() for t in fig.legends[0].texts] == ["measured", "predicted", "measured now"]
    assert "n, measured: 0.5 (predicted 0.25) at 8, 4 (predicted 8) at 64." in fig.ppp_alt.replace(
        ";", "."
    )
    assert "n, measured now: 3 (predicted 8) at 64" in fig.ppp_alt
    with pytest.raises(PPPError, match="'q'"):
        figures.predictions(frame, "x", "s", "q", col="of")


def test_heatmap(tmp_path):
    frame = pd.DataFrame({"a": [0.5, -1.25], "b": [np.nan, 3.0]}, index=["x", "y"])
    fig = figures.heatmap(frame, label="dB", fmt=".1f", center=0)
    ax, bar = fig.axes
    assert [t.get_text() for t in ax.texts] == ["0.5", "-1.2", "3.0"]
    assert bar.get_ylabel() == "dB"
    expected = "dB, 2 rows by 2 columns, -1.25 to 3. x: a 0.5, b undefined; y: a -1.25, b 3."
    assert fig.ppp_alt == expected


def test_frames_are_checked(long):
    assert "'snt'; did you mean 'snr'" in refused(figures.curves, long, "n", "snt")
    assert "'high'" in refused(figures.forest, long, "padding", "snr", "lo", "high")
    assert "no row" in refused(figures.curves, long[:0], "n", "snr")
    assert "no row" in refused(figures.heatmap, pd.DataFrame(), label="x")


def test_heatmap_texts_logarithm_and_diagonal():
    frame = pd.DataFrame({"b": [0.5, 0.01], "a": [np.nan, 1.0]}, index=["a", "b"])
    texts = pd.DataFrame({"b": ["50%", "1%"], "a": ["n/a", "all"]}, index=["a", "b"])
    fig = figures.heatmap(frame, label="PPP", annotations=texts, logscale=True, mark_diagonal=True)
    ax, bar = fig.axes
    at = {t.get_text(): t.get_position() for t in ax.texts}
    assert at == {"50%": (0.5, 0.5), "1%": (0.5, 1.5), "n/a": (1.5, 0.5), "all": (1.5, 1.5)}
    norm = ax.collections[0].norm
    assert isinstance(norm, matplotlib.colors.LogNorm) and (norm.vmin, norm.vmax) == (0.01, 1)
    fig.draw_without_rendering()
    assert "0.01" in [t.get_text() for t in bar.get_yticklabels()]
    framed = [tuple(np.floor(p.get_xy()).astype(int)) for p in ax.patches]
    assert framed == [(1, 0), (0, 1)]  # row a under column a, row b under column b
    assert "logarithmic colours, a frame around the 2 cells of equal row and column" in fig.ppp_alt
    assert "a: b 0.5 (50%), a undefined (n/a); b: b 0.01 (1%), a 1 (all)" in fig.ppp_alt
    for table, options, words in [
        (frame, {"annotations": texts.rename(index={"b": "c"})}, "'b'"),
        (frame, {"logscale": True, "center": 1}, "no center"),
        (frame.fillna(0), {"logscale": True}, "lowest value 0"),
        (frame.rename(index=str.upper), {"mark_diagonal": True}, "share no label"),
    ]:
        assert words in refused(figures.heatmap, table, label="PPP", **options)


# ---------------------------------------------------------------- runs over training


def drawn(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


@pytest.mark.parametrize("logy", [False, True])
def test_bands_are_students_t_intervals_over_units(runs, logy):
    fig = figures.bands(
        runs, "step", "mae", "padding", unit="seed", col="layer", logx=True, logy=logy
    )
    stem, layer1 = fig.axes[:2]
    assert (stem.get_title(), layer1.get_title()) == ("stem", "layer1")
    rows = runs[(runs.layer == "layer1") & (runs.padding == "randn")]
    to, back = (np.log, np.exp) if logy else (np.asarray, np.asarray)
    values = to(rows.pivot(index="step", columns="seed", values="mae").to_numpy())
    line = drawn(layer1, "randn")
    assert line.get_xdata().tolist() == [0, 4, 64, 1280]
    np.testing.assert_allclose(line.get_ydata(), back(values.mean(axis=1)))
    low, high = stats.t.interval(0.95, 2, values.mean(axis=1), stats.sem(values, axis=1))
    band = layer1.collections[1].get_paths()[0].vertices
    for x, ends in zip((0, 4, 64, 1280), zip(back(low), back(high))):
        np.testing.assert_allclose(np.unique(band[band[:, 0] == x, 1])[[0, -1]], ends)
    assert (band[:, 1] > 0).all() or not logy
    thin = [line for line in layer1.lines if line.get_linewidth() < 1]
    assert len(thin) == 2 * 3  # each seed of each padding
    seed = rows[rows.seed == 8].sort_values("step")
    assert any(line.get_ydata().tolist() == seed.mae.tolist() for line in thin)
    said = (
        f"layer1, randn: {line.get_ydata()[0]:.3g} [{back(low)[0]:.3g}, {back(high)[0]:.3g}] at 0"
    )
    assert said in fig.ppp_alt
    mean = "geometric mean" if logy else "mean"
    assert fig.ppp_alt.startswith(
        "4 lines of mae against step (logarithmic) in 2 panels (layer), "
        f"{mean} over 3 values of seed with 95 % interval. "
    )


def test_bands_end_where_no_value_can_lie(runs):
    one = runs[(runs.layer == "stem") & (runs.step == 0)]
    one = one.assign(share=[0.9, 1.0, 1.0] * (len(one) // 3))
    free, cut = (
        figures.bands(one, "step", "share", "padding", unit="seed", limits=limits)
        for limits in (None, (0, 1))
    )
    ends = [f.axes[0].collections[0].get_paths()[0].vertices[:, 1] for f in (free, cut)]
    assert ends[0].max() > 1 and ends[1].max() == 1 and ends[0].min() == ends[1].min()
    assert "95 % interval cut at 0 and 1." in cut.ppp_alt and "cut" not in free.ppp_alt


def test_bands_draw_step_0_on_a_logarithmic_axis(runs):
    one = runs[runs.layer == "stem"]
    for fig in (
        figures.bands(one, "step", "mae", "padding", unit="seed", logx=True, marks={"m": 64}),
        figures.curves(one[one.seed == 7], "step", "mae", "padding", logx=True),
    ):
        ax = fig.axes[0]
        fig.draw_without_rendering()
        ticks = [t.get_text() for t in ax.get_xticklabels()]
        assert ticks == ["0", "4", "16", "64", "256", "1024"]
        places = ax.transData.transform([(x, 1) for x in (0, 4, 16, 64, 256, 1024)])[:, 0]
        np.testing.assert_allclose(np.diff(places), np.diff(places)[0])
        left, right = ax.get_window_extent().intervalx
        assert 0 < (places[0] - left) / (right - left) < 0.1  # the left edge, less a margin
    logs = figures.curves(one[one.step > 0], "step", "mae", logx=True).axes[0]
    assert logs.get_xscale() == "log"


def test_bands_floor_marks_and_live_runs(runs):
    one = runs[runs.layer == "stem"]
    live = one[(one.seed == 7) & (one.padding == "randn") & (one.step < 100)]
    fig = figures.bands(
        one, "step", "mae", "padding", unit="seed", floor="floor",
        marks={"epoch 1": 32}, live=live.assign(mae=0.75),
    )  # fmt: skip
    ax = fig.axes[0]
    over = drawn(ax, "randn (live)")
    assert over.get_xdata().tolist() == [0, 4, 64] and set(over.get_ydata()) == {0.75}
    assert (over.get_linestyle(), over.get_markerfacecolor()) == (":", "none")
    assert over.get_color() == drawn(ax, "randn").get_color()
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [set(line.get_ydata()) for line in dashed] == [{0.0625}] * 2
    assert [t.get_text() for t in ax.texts] == ["epoch 1"]
    labels = [t.get_text() for t in fig.legends[0].texts]
    assert labels == ["zeros", "randn", "randn (live)", "each seed", "noise floor"]
    assert "and 1 (live) over 1, noise floor 0.0625 to 0.0625 dashed, marks at epoch 1 (32)" in (
        fig.ppp_alt
    )
    assert "randn (live): 0.75 at 0, 0.75 at 64." in fig.ppp_alt


def test_bands_of_many_lines_are_described_by_their_range(runs):
    names = [f"p{i}" for i in range(7)]
    many = pd.concat([runs.assign(padding=name, mae=2.0**i) for i, name in enumerate(names)])
    many = many.drop_duplicates(["padding", "seed", "layer", "step"])
    fig = figures.bands(many, "step", "mae", "padding", unit="seed", col="layer")
    assert fig.ppp_alt.startswith("14 lines of mae")
    assert "layer1: at 0 1 (p0) to 64 (p6), at 1280 1 (p0) to 64 (p6)." in fig.ppp_alt
    assert "p3" not in fig.ppp_alt


def test_panels_are_three_a_row_with_one_scale(runs):
    five = pd.concat([runs[runs.layer == "stem"].assign(layer=f"layer{i}") for i in range(5)])
    fig = figures.bands(five, "step", "mae", "padding", unit="seed", col="layer", logx=True)
    assert len(fig.axes) == 6 and fig.axes[5].get_legend() and not fig.legends
    assert {ax.get_ylim() for ax in fig.axes[:5]} == {fig.axes[0].get_ylim()}
    assert [bool(ax.get_xlabel()) for ax in fig.axes] == [False, False, True, True, True, False]


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda f: f, {"unit": "sead"}, "unknown column 'sead'; did you mean 'seed'"),
        (lambda f: f, {"floor": "flor"}, "did you mean 'floor'"),
        (lambda f: f.assign(mae=np.nan), {}, "no row to draw"),
        (lambda f: f, {"col": None}, "padding zeros, seed 7, step 64 has more than one mae"),
        (lambda f: f.assign(mae=0.0), {"logy": True}, "mae is 0 at its lowest"),
    ],
)
def test_bands_refuse(runs, change, options, message):
    options = {"unit": "seed", "col": "layer"} | options
    assert message in refused(figures.bands, change(runs), "step", "mae", "padding", **options)


@pytest.mark.parametrize("logy", [False, True])
def test_paired(runs, logy):
    state = runs.step.map({0: "initial", 1280: "trained"})
    rows = runs.assign(state=state)[(runs.layer == "stem") & state.notna()]
    fig = figures.paired(rows, "state", "mae", "seed", "padding", logy=logy, ylabel="MAE")
    assert [ax.get_title() for ax in fig.axes] == ["zeros", "randn"]
    wide = rows[rows.padding == "randn"].pivot(index="seed", columns="state", values="mae")
    *units, mean = fig.axes[1].lines
    assert [tuple(line.get_ydata()) for line in units] == list(map(tuple, wide.to_numpy()))
    expected = stats.gmean(wide) if logy else wide.mean().to_numpy()
    np.testing.assert_allclose(mean.get_ydata(), expected)
    assert mean.get_linewidth() > 2 * units[0].get_linewidth()
    assert [t.get_text() for t in fig.axes[1].get_xticklabels()] == ["initial", "trained"]
    assert fig.axes[0].get_yscale() == ("log" if logy else "linear")
    rise = (wide.trained > wide.initial).sum()
    said = f"mean {expected[0]:.3g} to {expected[1]:.3g}, {rise} of 3 rise"
    assert f"randn: {'geometric ' * logy}{said}" in fig.ppp_alt
    assert fig.ppp_alt.startswith("MAE from initial to trained, a line for each seed")


def test_paired_refuses(runs):
    stem = runs[runs.layer == "stem"]
    ends = stem[stem.step.isin([0, 1280])]
    for frame, message in [
        (stem, "step has 4 values"),
        (ends.iloc[1:], "padding zeros, seed 7, step 1280 has no partner"),
        (pd.concat([ends, ends]), "has more than one mae"),
        (ends[:0], "no row to draw"),
    ]:
        assert message in refused(figures.paired, frame, "step", "mae", "seed", "padding")


# ---------------------------------------------------------------- strips


@pytest.fixture
def accuracies():
    """Two variants, two tests: five seeds, equal values for F dissimilar, and one seed for S."""
    values = {
        ("V", "similar"): [60, 61, 63, 64, 62],
        ("V", "dissimilar"): [50, 51, 53, 58, 52],
        ("F-zero", "similar"): [70, 74, 72, 71, 70],
        ("F-zero", "dissimilar"): [66.5] * 5,
        ("S-zero", "similar"): [80],
    }
    rows = [(*key, seed, v) for key, cell in values.items() for seed, v in enumerate(cell)]
    return pd.DataFrame(rows, columns=["variant", "test", "seed", "acc"])


def test_strips_are_every_value_and_students_t_interval(accuracies):
    fig = figures.strips(accuracies, "variant", "acc", "test", unit="seed", ylabel="accuracy (%)")
    (ax,) = fig.axes
    assert (ax.get_xlabel(), fig.get_supylabel()) == ("variant", "accuracy (%)")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["V", "F-zero", "S-zero"]
    assert ax.get_xlim() == (-0.5, 2.5)
    labels = [t.get_text() for t in fig.legends[0].texts]
    assert labels == ["similar", "dissimilar", "each seed", "mean, 95 % interval"]
    for i, (test, container) in enumerate(zip(["similar", "dissimilar"], ax.containers)):
        rows = accuracies[accuracies.test == test]
        pale = next(
            li for li in ax.lines if li.get_alpha() and li.get_color() == figures.PALETTE[i]
        )
        assert pale.get_ydata().tolist() == rows.acc.tolist()
        assert pale.get_marker() == figures.MARKERS[i] and pale.get_markersize() < 5
        means, (lower, upper), (bars,) = container
        assert means.get_linestyle() == "None" and means.get_zorder() > pale.get_zorder()
        for j, variant in enumerate(["V", "F-zero"]):
            cell = rows[rows.variant == variant].acc
            ends = (66.5, 66.5)
            if cell.std():
                ends = stats.t.interval(0.95, 4, cell.mean(), stats.sem(cell))
            assert means.get_ydata()[j] == pytest.approx(cell.mean())
            np.testing.assert_allclose((lower.get_ydata()[j], upper.get_ydata()[j]), ends)
            np.testing.assert_allclose(bars.get_segments()[j][:, 1], ends)
        at = np.asarray(pale.get_xdata())[:5]
        assert len(set(at)) == 5 and at.mean() == pytest.approx(means.get_xdata()[0])
        assert (at < 0).all() if i == 0 else (at > 0).all()  # the hues lie side by side
    similar, dissimilar = (container[0] for container in ax.containers[:2])
    assert similar.get_ydata()[2] == 80 and np.isnan(dissimilar.get_ydata()[2])
    assert np.isnan(ax.containers[0][1][0].get_ydata()[2])  # one trial: no interval
    said = "accuracy (%) by variant and test, each seed and the mean with 95 % interval. similar: "
    assert fig.ppp_alt.startswith(said + "62 [60, 64] (n 5) at V, 71.4 [69.3, 73.5] (n 5) at F-z")
    assert fig.ppp_alt.endswith(", 66.5 [66.5, 66.5] (n 5) at F-zero.")
    assert "(n 5) at F-zero, 80 (n 1) at S-zero; dissimilar: 52.8" in fig.ppp_alt


def test_strips_with_references(accuracies):
    table = pd.DataFrame(
        {"variant": ["F-zero", "V", "new"], "test": "similar", "acc": [75.0, 65.0, 40.0]}
    )
    table = table.assign(low=[74.0, np.nan, np.nan], high=[76.0, np.nan, np.nan])
    fig = figures.strips(
        accuracies, "variant", "acc", "test", unit="seed", references={"paper": table}
    )  # fmt: skip
    (ax,) = fig.axes
    (diamonds,) = (line for line in ax.lines if line.get_marker() == "d")
    assert diamonds.get_ydata().tolist() == [75, 65, 40]
    assert diamonds.get_markerfacecolor() == "white" and diamonds.get_color() == "black"
    pale = next(line for line in ax.lines if line.get_alpha())
    beside = diamonds.get_xdata()[1]
    assert max(pale.get_xdata()[:5]) < beside < 0  # between the trials of both hues
    spans = [
        c.get_segments() for c in ax.collections if c not in sum((k[2] for k in ax.containers), ())
    ]
    assert [seg[:, 1].tolist() for segments in spans for seg in segments] == [[74, 76]]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["V", "F-zero", "S-zero", "new"]
    assert fig.legends[0].texts[-1].get_text() == "paper"
    assert "62 [60, 64] (n 5) and paper 65 at V, " in fig.ppp_alt
    assert "and paper 75 [74, 76] at F-zero, 80 (n 1) at S-zero, paper 40 at new;" in fig.ppp_alt


def test_strips_on_an_axis_that_is_linear_near_0():
    values = {"near": [-9.0, 4, 12], "far": [60.0, -3, 8]}
    frame = pd.DataFrame(values).melt(var_name="metric", value_name="score")
    frame = frame.assign(padding=["zeros", "zeros", "randn"] * 2, seed=[0, 1, 0] * 2)
    fig = figures.strips(frame, "padding", "score", unit="seed", col="metric", linear_to=10)
    assert len(fig.axes) == 2
    for ax in fig.axes:
        near, at, far = ax.transScale.transform([(0, 5), (0, 10), (0, 100)])[:, 1]
        assert near == pytest.approx(at / 2) and at < far < 3 * at
        assert ax.yaxis.get_major_formatter()(50, 0) == "50"
        assert {-10, 0, 10, 20, 50} <= set(ax.yaxis.get_majorticklocs())


def test_strips_joined_in_panels(runs):
    keys = {"step": runs.step / 64, "early": runs.seed < 9}
    frame = runs.assign(**keys)[(runs.layer == "stem") & runs.step.isin([0, 4, 64])]
    frame = frame[(frame.padding != "randn") | (frame.step != 0.0625) | ~frame.early]
    one = pd.DataFrame({"step": [1], "padding": "zeros", "early": True, "mae": 0.5})
    fig = figures.strips(
        frame, "step", "mae", "padding", unit="seed", col="early", joined=True, ylim=(0, 1),
        references={"x": one},
    )  # fmt: skip
    left, right = fig.axes
    assert (left.get_title(), right.get_title()) == ("early True", "early False")
    assert left.get_ylim() == right.get_ylim() == (0, 1)
    assert [t.get_text() for t in right.get_xticklabels()] == ["1", "0", "0.0625"]
    lines = [container[0] for container in left.containers[:2]]
    assert {line.get_linestyle() for line in lines} == {"-"}
    rows = frame[frame.early & (frame.padding == "zeros")]
    np.testing.assert_allclose(
        lines[0].get_ydata(orig=False), rows.groupby("step", sort=False).mae.mean()
    )
    assert np.isnan(lines[1].get_ydata(orig=False)).tolist() == [False, False, True]
    assert [len(line.get_ydata()) for line in left.lines if line.get_marker() == "d"] == [1]
    assert not [line for line in right.lines if line.get_marker() == "d"]
    assert "in 2 panels (early), " in fig.ppp_alt and "joined by lines. early True" in fig.ppp_alt
    assert "early False, zeros: " in fig.ppp_alt and "(n 1) at 0.0625" in fig.ppp_alt


def test_many_strips_are_described_by_their_range_four_panels_a_row(accuracies):
    many = pd.concat(
        [accuracies.assign(layer=f"layer{i}", acc=accuracies.acc + i) for i in range(6)]
    )
    table = many[many.seed == 0].assign(acc=lambda f: f.acc + 1)
    fig = figures.strips(
        many, "variant", "acc", "test", unit="seed", col="layer", references={"published": table}
    )
    assert len(fig.axes) == 8 and fig.axes[6].get_legend() and not fig.legends
    assert {ax.get_ylim() for ax in fig.axes[:6]} == {fig.axes[0].get_ylim()}
    expected = (
        "similar: 62 (layer0, V) to 85 (layer5, S-zero), n 1 to 5, published 61 (layer0, V) to 86 "
        "(layer5, S-zero); dissimilar: 52.8 (layer0, V) to 71.5 (layer5, F-zero), n 5, published 51"
    )
    assert expected in fig.ppp_alt and "layer3" not in fig.ppp_alt
    wide = many.assign(variant=many.variant + many.seed.astype(str), seed=many.variant)
    assert len(figures.strips(wide, "variant", "acc", "test", unit="seed", col="layer").axes) == 6


@pytest.mark.parametrize(
    ("names", "panels"),
    [
        (["V", "S-zero", "S-circular", "F-zero"], 4),
        (["reflect padding", "F-zero two-stage", *"ABCDEF"], 1),
        (["partial convolution, renormalised", "replicate_edges", "S-zero", *"ABCDE"], 4),
        ([f"replicate_edges{i}" for i in range(24)], 1),
    ],
)
def test_labels_of_categories_do_not_overlap(names, panels):
    keys = [(name, j, panel) for panel in range(panels) for name in names for j in range(3)]
    frame = pd.DataFrame(keys, columns=["x", "seed", "layer"]).assign(y=range(len(keys)))
    fig = figures.strips(frame, "x", "y", unit="seed", col="layer")
    fig.draw_without_rendering()
    for ax in fig.axes[-1:]:
        texts = [label for label in ax.get_xticklabels() if label.get_text()]
        assert [" ".join(t.get_text().split()).replace("- ", "-") for t in texts] == names
        (angle,) = {t.get_rotation() for t in texts}
        # Turned back by the angle, labels are upright boxes: apart across, or one above another.
        for label in texts:
            label.set_rotation(0)
        boxes = [label.get_window_extent() for label in texts]
        pitch = np.diff(ax.transData.transform([(0, 0), (1, 0)])[:, 0])[0]
        if angle:
            assert max(box.height for box in boxes) < pitch * np.sin(np.radians(angle))
        else:
            assert max(box.width for box in boxes) < pitch


TWICE = pd.DataFrame({"variant": ["V"] * 2, "test": "similar", "acc": 1.0})


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda f: f[:0], {}, "no row to draw"),
        (lambda f: f.assign(acc=np.nan), {}, "no row to draw"),
        (lambda f: f, {"unit": "sead"}, "unknown column 'sead'; did you mean 'seed'"),
        (lambda f: f, {"col": "layer"}, "unknown column 'layer'"),
        (lambda f: f, {"hue": None}, "variant V, seed 0 has more than one acc"),
        (lambda f: f, {"references": {"a": TWICE[["acc"]]}}, "unknown column 'test'"),
        (lambda f: f, {"references": {"a": TWICE}}, "test similar, variant V has more than one"),
    ],
)
def test_strips_refuse(accuracies, change, options, message):
    options = {"unit": "seed", "hue": "test"} | options
    assert message in refused(figures.strips, change(accuracies), "variant", "acc", **options)


def growing():
    edge = np.pad(np.zeros((3, 3)), 1, constant_values=4.0)
    centre = 4 - edge
    return {("zeros", 0): edge / 4, ("zeros", 64): edge, ("randn", 64): centre / 8}


def test_growth_maps():
    fig = figures.growth_maps(growing(), label="PPP (σ)")
    grid = np.reshape(fig.axes[:4], (2, 2))
    assert [ax.get_title() for ax in grid[0]] == ["0", "64"]
    assert [ax.get_ylabel() for ax in grid[:, 0]] == ["zeros", "randn"]
    assert not grid[1, 0].images  # randn was not measured at 0
    np.testing.assert_array_equal(grid[1, 1].images[0].get_array(), growing()["randn", 64])
    scales = [(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in fig.axes[:4] if ax.images]
    assert scales == [(0, 4), (0, 4), (0, 0.5)]
    assert len(fig.axes) == 4 + 2
    assert "zeros: mean 0.64 at 0, 2.56 at 64, strongest at the border (4, 0 inside)" in fig.ppp_alt
    assert "randn: mean 0.18 at 64, strongest at the centre (0.5, 0 at the border)." in fig.ppp_alt


# ---------------------------------------------------------------- pages and files


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_html_has_picture_alt_caption_and_footer():
    fig = figures.gallery({'<b>"x"</b>': np.eye(4)})
    footer = {"seed": 0, "sizes": [1, 2], "versions": {"torch": "<2>"}, "note": "<script>"}
    page = Tags(figures.as_html(fig, "a < b & <i>c</i>", footer))
    names = [tag for tag, _ in page.tags]
    assert names[:6] == ["figure", "img", "img", "figcaption", "details", "summary"]
    light, for_dark = (dict(attrs) for tag, attrs in page.tags if tag == "img")
    assert for_dark["class"] == "ppp-dark" and "display:none" in for_dark["style"]
    assert light["class"] == "ppp-light" and for_dark["width"] == light["width"]
    assert not {"i", "script"} & set(names) and names.count("b") == len(footer)
    image = light
    assert image["alt"] == fig.ppp_alt and '<b>"x"</b>: 4 x 4' in image["alt"]
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    data = base64.b64decode(data)
    assert data.startswith(b"\x89PNG")
    assert int(image["width"]) == int.from_bytes(data[16:20], "big") // 2
    assert "a < b & <i>c</i>" in page.text
    for part in ("seed: 0", "sizes: 1, 2", "torch: <2>", "note: <script>"):
        assert part in page.text
    assert "<details>" not in figures.as_html(fig, "caption")


def test_show_displays_the_html(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    fig = figures.gallery({"a": np.eye(4)})
    assert figures.show(fig, "caption", {"seed": 1}) is None
    assert shown[0].data == figures.as_html(fig, "caption", {"seed": 1})


def test_a_figure_without_alt_text_is_refused(tmp_path):
    fig = matplotlib.figure.Figure()
    for use in (lambda: figures.save(fig, tmp_path / "a.png"), lambda: figures.as_html(fig, "c")):
        with pytest.raises(PPPError, match="no alt text"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_save_is_atomic_and_carries_the_alt_text(tmp_path, monkeypatch):
    fig = figures.gallery({"größe": np.eye(4)})
    path = figures.save(fig, tmp_path / "new" / "a.png")
    with Image.open(path) as png:
        assert png.text == {"Description": fig.ppp_alt}
        assert png.size == tuple(np.round(fig.get_size_inches() * 160).astype(int))
    before = path.read_bytes()
    figures.save(fig, path)
    assert path.read_bytes() == before
    figures.save(figures.gallery({"größe": np.eye(4)}), path)
    assert path.read_bytes() == before  # equal figures are equal files

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save(figures.gallery({"other": np.ones((4, 4))}), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(PPPError, match=r"expected '\.png'"):
        figures.save(fig, tmp_path / "a.pdf")


def test_a_forest_in_panels_draws_the_threshold_of_each():
    rows = pd.DataFrame({"row": ["a", "b", "a"], "part": ["x", "x", "y"], "delta": [1.0, 1.0, 5.0]})
    rows = rows.assign(value=[0.5, 1.5, 6.0], low=[0.4, 1.2, 5.5], high=[0.6, 1.8, np.nan])
    rows["grade"] = pd.Categorical(["bad", "good", "good"], ["good", "unused", "bad"])
    options = {"group": "grade", "panel": "part", "reference": "delta"}
    fig = figures.forest(rows, "row", "value", "low", "high", **options)
    upper, lower = fig.axes
    assert [upper.get_xlabel(), lower.get_xlabel()] == ["x", "y"]
    lines = [ax.lines[0].get_xdata()[0] for ax in fig.axes]
    assert lines == [1.0, 5.0] and "a line in each panel" in fig.ppp_alt
    good = [line for ax in fig.axes for line in ax.lines if line.get_label() == "good"]
    looks = {(line.get_marker(), str(line.get_color())) for line in good}
    assert len(good) == 2 and len(looks) == 1, "a level looks the same in every panel"
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["good", "bad"]
