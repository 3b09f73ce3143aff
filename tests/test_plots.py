"""Pictures: what is drawn is what was given, however much it is and whatever it is called."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from ddpm_tutorial import data, plots


def sheet(figure):
    """The one array of a grid."""
    (image,) = figure.axes[0].images
    return image.get_array()


def words(figure, path):
    """Every text of a figure as it stands in the picture: an SVG with letters as letters."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(path)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("C, H, W", [(1, 8, 8), (3, 8, 8), (1, 5, 9), (1, 1, 1)])
def test_every_image_of_a_grid_is_in_its_place_and_whole(C, H, W):
    """Seven images in three columns: rows first, a white line between them, and nothing in the two places that are left."""
    x = torch.rand(7, C, H, W) * 2 - 1
    seen, gap = sheet(plots.grid(x, columns=3)), max(1, round(0.06 * H))
    assert seen.shape[:2] == (3 * (H + gap) - gap, 3 * (W + gap) - gap)
    for i in range(9):
        top, left = i // 3 * (H + gap), i % 3 * (W + gap)
        wanted = data.denormalise(x[i]).permute(1, 2, 0).squeeze(2 if C == 1 else ()).numpy() if i < 7 else np.uint8(255)
        assert np.array_equal(seen[top:top + H, left:left + W], np.broadcast_to(wanted, seen[top:top + H, left:left + W].shape))
        assert (seen[top + H:top + H + gap] == 255).all() and (seen[:, left + W:left + W + gap] == 255).all()


def test_titles_stand_over_the_columns_and_names_beside_the_rows():
    """In the middle of each, in pixels of the array."""
    axis = plots.grid(torch.zeros(6, 1, 8, 8), 3, ["a", "b", "c"], rows=["one", "two"]).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b", "c"] and axis.get_xticks().tolist() == [3.5, 12.5, 21.5]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"] and axis.get_yticks().tolist() == [3.5, 12.5]


@pytest.mark.parametrize("n, columns", [(10_000, 10), (10_000, 100), (70_000, 10)])
def test_ten_thousand_images_are_one_array_in_a_picture_that_can_be_drawn(n, columns):
    """An axes for each took minutes for 800; and a renderer takes less than 2^16 pixels each way, so a long grid is drawn smaller."""
    figure = plots.grid(torch.zeros(n, 1, 8, 8), columns)
    assert len(figure.axes) == 1 and len(figure.axes[0].images) == 1
    figure.set_dpi(150)
    width, height = figure.canvas.get_width_height()
    assert max(width, height) < 2**16 and width * height < 3e7
    assert FigureCanvasAgg(figure).get_renderer() is not None


def test_long_names_of_a_hundred_classes_stand_upright():
    """Side by side they would run into each other."""
    names = [f"class number {i}" for i in range(100)]
    assert {label.get_rotation() for label in plots.grid(torch.zeros(100, 1, 8, 8), 100, names).axes[0].get_xticklabels()} == {90}
    assert {label.get_rotation() for label in plots.grid(torch.zeros(10, 1, 8, 8), 10, list("0123456789")).axes[0].get_xticklabels()} == {0}


@pytest.mark.parametrize("name", ["5$ or 10$", "$", "$x_t", "a_b^c", r"$\frac{$", r"\$", "{", "猫", "100%"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_users_text_is_drawn_as_it_is(name, tmp_path):
    """A class called "5$ or 10$" is no formula; matplotlib fails at what is a wrong one, after hours of training."""
    text = words(plots.grid(torch.zeros(2, 1, 8, 8), 2, [plots.plain(name)] * 2, plots.plain(name)), tmp_path / "x.svg")
    assert text.count(f">{name}</text>") == 3 and "<tspan" not in text


def test_a_name_that_is_no_text_can_be_drawn(tmp_path):
    """Linux allows any bytes as a name; Python has half a character for each that is no UTF-8."""
    plots.grid(torch.zeros(1, 1, 8, 8), 1, [plots.plain("cat\udcff")]).savefig(tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size[0] > 0
