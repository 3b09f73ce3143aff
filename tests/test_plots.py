"""Pictures: what is drawn is what was given, however much it is and whatever it is called."""

import base64
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image, ImageSequence

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


def test_every_subject_of_the_chain_is_drawn_and_named():
    """The subject alone is drawn thick, in colour, with its density beside it; without one nothing is."""
    wanted = {"q": r"$q(x_t\,|\,x_{t-1})$", "p": r"$p_\theta(x_{t-1}\,|\,x_t)$", "marginal": r"$q(x_t\,|\,x_0)$", "posterior": r"$q(x_{t-1}\,|\,x_t, x_0)$",
              "x_0": r"$\hat{x}_0$, as seen from $x_t$", "stride": "stride", "guided": r"$p_\theta(x_{t-1}\,|\,x_t, y)$"}
    assert set(wanted) == set(plots.SUBJECTS)
    for subject in ("", *plots.SUBJECTS):
        (axis,) = plots.chain(subject).axes
        coloured = [text.get_text() for text in axis.texts if text.get_color() in plots.COLOURS[:3]]
        thick = [patch for patch in axis.patches if patch.get_linewidth() == 3]
        assert (wanted[subject] in coloured and thick) if subject else not (coloured or thick), subject


def test_no_two_words_of_the_chain_lie_on_each_other():
    """At the width of a page, 900 pixels, with pictures and without."""
    for subject in ("", *plots.SUBJECTS):
        for images in ((), torch.zeros(4, 1, 28, 28)):
            figure = plots.chain(subject, images)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
            width, height = canvas.get_width_height()
            assert width == 900 and all(0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height for box in boxes), subject
            assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]), subject


def test_the_chain_holds_the_pictures_it_is_given():
    """x_T, x_t, x_{t-1}, x_0, from left to right."""
    x = torch.rand(4, 1, 28, 28) * 2 - 1
    drawn = sorted(plots.chain("p", x).axes[0].images, key=lambda image: image.get_extent()[0])
    assert len(drawn) == 4 and all(np.array_equal(image.get_array(), data.denormalise(x[i])[0]) for i, image in enumerate(drawn))


def test_the_four_families_are_drawn_and_only_diffusion_has_steps_between():
    """Two circles each, and two more where the way is cut into steps."""
    drawn = {axis.get_title(): len(axis.lines) for axis in plots.families().axes}
    assert drawn == {"GAN": 2, "VAE": 2, "normalising flow": 2, "diffusion": 4}


def test_the_chord_of_the_logarithm_lies_below_it_and_both_averages_are_named():
    """Between 1 and e² the average is 4.19, whose logarithm is 1.43; the average of the logarithms 0 and 2 is 1."""
    axis, = plots.jensen(1.0, np.e**2).axes
    curve, chord, gap = (line.get_xydata() for line in axis.lines)
    inside = (curve[:, 0] > 1) & (curve[:, 0] < np.e**2)
    assert (curve[inside, 1] > np.interp(curve[inside, 0], *chord.T)).all()
    assert np.allclose(gap, [[4.1945, 1.4338], [4.1945, 1.0]], atol=1e-4)
    assert {"log of the average, 1.43", "average of the logs, 1.00"} <= {text.get_text() for text in axis.texts}


def test_what_is_no_part_of_the_chain_is_named():
    with pytest.raises(ValueError, match="'r' is no part of the chain"):
        plots.chain("r")


def test_triangles_of_one_long_side_have_their_corners_on_one_circle():
    """DDIM eq. 7: whatever part of the noise is fresh, old and fresh noise together have one size."""
    figure = plots.triangles({"none fresh": (5, 0), "some": (4, 3), "most": (3, 4)}, "old", "fresh", "together 5")
    (axis,) = figure.axes
    circle, *uprights = axis.lines
    assert np.allclose(np.hypot(*circle.get_data()), 5)
    assert [line.get_xydata()[1].tolist() for line in uprights] == [[5, 0], [4, 3], [3, 4]]
    assert {text.get_text() for text in axis.texts} >= {"none fresh", "some", "most"}
    with pytest.raises(ValueError, match=r"5\.000, 6\.000\. Draw triangles that share one"):
        plots.triangles({"a": (5, 0), "b": (6, 0)}, "", "", "")


def test_a_moving_picture_has_every_frame_in_its_own_greys(tmp_path):
    """Grey pictures are not quantised: each pixel of each frame is the image's, in the cell, in the file and in a GIF."""
    frames = [torch.rand(6, 1, 9, 7) * 2 - 1 for _ in range(5)]
    moving = plots.animation(frames, seconds=1, columns=3, enlarge=2, path=tmp_path / "x.png")
    for source in (io.BytesIO(moving.data), tmp_path / "x.png", plots.gif(frames, tmp_path / "x.gif", columns=3, enlarge=2)):
        seen = [(frame.copy().convert("L"), frame.info["duration"]) for frame in ImageSequence.Iterator(Image.open(source))]
        assert [ms for _, ms in seen] == ([200] * 4 if str(source)[-3:] != "gif" else [60] * 4) + [1500]      # it waits at its end
        for (picture, _), x in zip(seen, frames):
            for i in range(6):
                top, left = 2 * (1 + i // 3 * 10), 2 * (1 + i % 3 * 8)
                assert np.array_equal(np.asarray(picture)[top:top + 18:2, left:left + 14:2], data.denormalise(x[i])[0])


def test_moving_figures_keep_their_colours():
    """A colour map in motion: every pixel as it was drawn."""
    def frame(power):
        figure, ((axis,),) = plots.axes(1, 1, 2, 2)
        axis.imshow(np.linspace(0, 1, 64).reshape(8, 8) ** power, cmap="viridis")
        return figure

    figures = [frame(power) for power in (0.5, 2)]
    seen = [np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(Image.open(io.BytesIO(plots.animation(figures).data)))]
    assert len(seen) == 2
    for figure, picture in zip(figures, seen):
        assert np.array_equal(picture, np.asarray(figure.canvas.buffer_rgba())[..., :3])


def test_a_cell_that_ends_with_an_animation_shows_it():
    """As image/png, which every viewer of notebooks shows."""
    data, _ = plots.animation([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)])._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).n_frames == 2


def test_nothing_is_cut_off_in_an_animation_of_clouds():
    """Titles and axis labels lie within the frame, so its edges are white.  In 08 they were cut: the layout of axes of equal aspect needs a second drawing."""
    clouds = {"guided, scale 2.50": torch.zeros(1, 2), "p(x) p(y|x)^scale": torch.zeros(1, 2)}
    with Image.open(io.BytesIO(plots.animation([plots.points(clouds, limit=2.4) for _ in range(2)]).data)) as moving:
        for frame in range(moving.n_frames):
            moving.seek(frame)
            pixels = np.asarray(moving.convert("L"))
            assert min(edge.min() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])) == 255


def test_the_drawing_of_the_u_net_has_the_parts_and_the_channels_of_the_network_in_the_package():
    """Whoever changes the digits' network must draw it anew: the map would send the reader wrong."""
    from ddpm_tutorial import DDPM
    from ddpm_tutorial.unet import Block, Downsample, Upsample

    drawn = Counter()
    for text in plots.u_net().axes[0].texts:
        what, _, widths = text.get_text().rpartition("\n")
        if "→" in widths:
            drawn[(what.split()[0], *(sum(map(int, side.split("+"))) for side in widths.split("→")))] += 1
    built = Counter()
    for module in DDPM.load("digits").net.modules():
        if isinstance(module, Block):
            built["block", module.conv1.in_channels, module.conv1.out_channels] += 1
        elif isinstance(module, Downsample | Upsample):
            built["halve" if isinstance(module, Downsample) else "double", module.conv.in_channels, module.conv.out_channels] += 1
    assert {part: n for part, n in drawn.items() if part[0] != "conv"} == built


def test_slimming_a_notebook_leaves_alone_what_moves(tmp_path):
    """An animated PNG and a GIF stay bit for bit; a still of many colours gets 256."""
    frames = [torch.rand(1, 1, 8, 8) for _ in range(3)]
    still = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(still, "PNG")
    pictures = [plots.animation(frames).data, plots.gif(frames, tmp_path / "x.gif").read_bytes(), still.getvalue()]
    outputs = [new_output("display_data", data={"image/png": base64.b64encode(picture).decode()}) for picture in pictures]
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=outputs)]), tmp_path / "x.ipynb")
    subprocess.run([sys.executable, Path(__file__).parents[1] / "notebooks" / "slim.py", tmp_path / "x.ipynb"], check=True)
    after = [base64.b64decode(output.data["image/png"]) for output in nbformat.read(tmp_path / "x.ipynb", 4).cells[0].outputs]
    assert after[:2] == pictures[:2] and len(after[2]) < len(pictures[2])


def test_slimming_a_notebook_joins_what_was_printed_in_pieces(tmp_path):
    """Two lines of one cell are one block again; what went to stderr stays apart."""
    out = nbformat.v4.new_output
    pieces = [out("stream", name="stdout", text="a\n"), out("stream", name="stdout", text="b\n"), out("stream", name="stderr", text="c\n")]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=pieces)]), tmp_path / "x.ipynb")
    subprocess.run([sys.executable, Path(__file__).parents[1] / "notebooks" / "slim.py", tmp_path / "x.ipynb"], check=True)
    assert [output.text for output in nbformat.read(tmp_path / "x.ipynb", 4).cells[0].outputs] == ["a\nb\n", "c\n"]


def test_slimming_keeps_the_colours_of_a_colour_map(tmp_path):
    """256 colours in place of all: on average less than one step of 255 away from the true ones, in a picture that is full of a map's colours."""
    figure, ((axis,),) = plots.axes()
    axis.imshow(np.random.default_rng(0).random((40, 60)), cmap="viridis")
    figure.savefig(tmp_path / "x.png", dpi=100)
    true = (tmp_path / "x.png").read_bytes()
    output = new_output("display_data", data={"image/png": base64.b64encode(true).decode()})
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[output])]), tmp_path / "x.ipynb")
    subprocess.run([sys.executable, Path(__file__).parents[1] / "notebooks" / "slim.py", tmp_path / "x.ipynb"], check=True)
    slim = base64.b64decode(nbformat.read(tmp_path / "x.ipynb", 4).cells[0].outputs[0].data["image/png"])
    before, after = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float) for png in (true, slim))
    assert len(slim) < len(true) and np.abs(before - after).mean() < 1


def test_curves_draws_each_line_in_its_panel_and_sets_what_the_panel_says():
    """Axes that share a setting get it from the call; a panel's own wins."""
    left = {"lines": {"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 5], {"yerr": ([1, 1], [1, 1])})}, "title": "two"}
    right = {"lines": {"a": ([1, 2], [3, 4], {"marker": "o"})}, "ylabel": "own (m)"}
    one, two = plots.curves(left, right, xlabel="x (s)", ylabel="y (s)", xticks=(1, 2)).axes
    assert (one.get_xlabel(), one.get_ylabel(), two.get_ylabel(), one.get_title()) == ("x (s)", "y (s)", "own (m)", "two")
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["a", "b"] and two.get_legend() is None
    assert [label.get_text() for label in one.get_xticklabels()] == ["1", "2"]


def test_clouds_of_a_number_share_one_colour_scale_and_arrows_are_drawn_where_they_are_asked_for():
    """Panels that scale their colours apart cannot be compared."""
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    figure = plots.points({"a": x, "b": x}, colour=torch.stack([torch.linspace(0, 0.1, 20), torch.linspace(0, 1, 20)]), arrows={"b": lambda at: 100 * at})
    first, second = figure.axes
    assert first.collections[0].get_clim() == second.collections[0].get_clim() == (0, 1)
    assert len(first.collections) == 1 and len(second.collections) == 2
    assert np.hypot(second.collections[1].U, second.collections[1].V).max() < 1     # long arrows are shortened
