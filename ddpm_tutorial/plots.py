"""Pictures; the only file that knows matplotlib.  Every function returns a Figure: show it by making it a cell's last line, or `.savefig(path)`.
What moves: `animation` plays in the cell that ends with it, `gif` is a file.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.  In a notebook, begin with  %matplotlib inline.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, cartesian_prod, linspace

from .data import denormalise

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SUBJECTS = ("q", "p", "marginal", "posterior", "x_0", "stride", "guided")       # of a chain
GREY = "#999999"
LONGEST, LARGEST = 400, 600                                     # of a grid, in inches and square inches: 65,535 pixels, at 150 an inch, are the end
STYLES = ("-", "--", "-.", ":")                                 # a second cue, for black-and-white prints
LOOK: dict[Any, Any] = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False}


def axes(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.4, **options):
    """A Figure in the house's look and an array of its axes, (rows, columns): for pictures that have no function of their own."""
    with rc_context(LOOK):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def schedules(named: Mapping[str, Any]) -> Figure:
    """β_t, ᾱ_t and the signal-to-noise ratio in dB of each schedule, over t/T."""
    figure, ((beta, alpha_bar, snr),) = axes(3)
    for (name, schedule), colour, style in zip(named.items(), COLOURS, STYLES * 2):
        t = np.arange(schedule.T + 1) / schedule.T
        line = {"color": colour, "linestyle": style, "label": name, "linewidth": 2}
        beta.plot(t[1:], schedule.beta[1:] * schedule.T / 1000, **line)
        alpha_bar.plot(t, schedule.alpha_bar, **line)
        snr.plot(t[1:], 10 * schedule.snr[1:].log10(), **line)
    beta.set(title="noise added per step", xlabel="t / T", ylabel="β$_t$ · T/1000", yscale="log")
    alpha_bar.set(title="signal power left", xlabel="t / T", ylabel="$\\bar{α}_t$")
    snr.set(title="signal-to-noise ratio", xlabel="t / T", ylabel="SNR (dB)", ylim=(-60, 45))
    snr.axhline(0, color="grey", linewidth=0.8)
    alpha_bar.legend()
    return figure


def grid(images: Tensor, columns: int = 10, titles: Sequence[str] = (), title: str = "", size: float = 0.7, rows: Sequence[str] = ()) -> Figure:
    """Images (N, C, H, W) in [-1, 1], row by row; titles over the columns, and what each row is at its left.   One array: ten thousand are no matter."""
    pixels = denormalise(images.detach().cpu()).permute(0, 2, 3, 1).numpy()     # (N, H, W, C)
    (n, H, W, C), count = pixels.shape, -(-len(pixels) // columns)
    gap = max(1, round(0.06 * H))
    cells = np.full((count * columns, H + gap, W + gap, C), 255, np.uint8)
    cells[:n, :H, :W] = pixels
    sheet = cells.reshape(count, columns, H + gap, W + gap, C).transpose(0, 2, 1, 3, 4).reshape(count * (H + gap), columns * (W + gap), C)
    size = min(size, LONGEST / max(columns, count), (LARGEST / (columns * count)) ** 0.5)
    above, left = (0.1 * max(map(len, words), default=0) for words in (titles, rows))              # a letter is a tenth of an inch
    slant, above = (90, above) if above > 1.2 * size else (0, 0.25 if titles else 0)
    figure, ((axis,),) = axes(1, 1, left + columns * size, above + (0.25 if title else 0) + count * size * H / W)
    _show(axis, sheet[:-gap, :-gap])
    axis.set_xticks(np.arange(len(titles)) * (W + gap) + (W - 1) / 2, titles, fontsize=11, rotation=slant)
    axis.set_yticks(np.arange(len(rows)) * (H + gap) + (H - 1) / 2, rows, fontsize=11)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def film_strip(states: Sequence, image: int = 0, frames: int = 11, title: str = "") -> Figure:
    """One image on its way from noise to data: above x_t, below what the network believes x_0 to be at that moment."""
    chosen = [states[i] for i in np.linspace(0, len(states) - 1, min(frames, len(states))).round().astype(int)]
    figure, cells = axes(len(chosen), 2, 0.95, 1.15)
    for column, state in enumerate(chosen):
        for cell, x in zip(cells[:, column], (state.x_t, state.x_0)):
            _show(cell, denormalise(x[image].detach().cpu()).permute(1, 2, 0).numpy())
        cells[0, column].set_title(f"t = {state.t}", fontsize=10)
    for row, label in enumerate(("$x_t$", "$\\hat{x}_0$")):
        cells[row, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=14)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def curves(*panels: Mapping[str, Any], width: float = 4.8, height: float = 3.5, **settings) -> Figure:
    """Lines over a number, panel by panel.   A panel: {"lines": {name: (x, y)}, …}, and what else is in it (title, ylabel, yscale …) is set on its axes.

    A line may bring its own look: (x, y, {"marker": "o"}), or its intervals: {"yerr": (below, above)}.   `settings` hold for every panel.
    """
    figure, (row,) = axes(len(panels), width=width, height=height)
    for axis, panel in zip(row, ({**settings, **panel} for panel in panels)):
        for i, (name, (x, y, *look)) in enumerate(panel["lines"].items()):
            line = {"color": COLOURS[i % 7], "linestyle": STYLES[i % 4], "linewidth": 2, "markersize": 5, "label": name, **(look[0] if look else {})}
            (axis.errorbar if "yerr" in line else axis.plot)(x, y, **line)
        options = {key: value for key, value in panel.items() if key not in ("lines", "legend")}
        axis.set(**options)
        if "xticks" in options:
            axis.set_xticks(options["xticks"], [f"{x:g}" for x in options["xticks"]])
            axis.tick_params(axis="x", which="minor", length=0, labelbottom=False)
        if "yticks" in options:
            axis.tick_params(axis="y", which="minor", length=0, labelleft=False)
        if len(panel["lines"]) > 1 and (place := panel.get("legend", "best")):
            axis.legend(fontsize=9, loc=place)
    return figure


def histograms(heaps: Mapping[str, Tensor], bins: Tensor, marks: Mapping[str, float] | None = None, **settings) -> Figure:
    """Outlines of several heaps of numbers over one axis, each of area 1; `marks` are numbers to be seen among them."""
    figure, ((axis,),) = axes(width=7.5, height=3.3)
    for i, (name, values) in enumerate(heaps.items()):
        axis.hist(values, bins, histtype="step", linewidth=2, density=True, color=COLOURS[i % 7], linestyle=STYLES[i % 4], label=name)
    for name, value in (marks or {}).items():
        axis.axvline(value, color="black", linewidth=1.5, label=name)
    axis.set(ylabel="density", **settings)
    axis.legend(fontsize=9)
    return figure


def loss_curve(losses: Sequence[float], window: int = 20, title: str = "") -> Figure:
    """The loss of each step, and its running mean over `window` steps."""
    figure, ((axis,),) = axes(width=6.4, height=3.6)
    window = max(1, min(window, len(losses)))
    axis.plot(range(1, len(losses) + 1), losses, color=COLOURS[5], linewidth=0.7, alpha=0.6, label="each step")
    mean = np.convolve(losses, np.ones(window) / window, "valid")
    axis.plot((window + 1) / 2 + np.arange(len(mean)), mean, color=COLOURS[0], linewidth=2, label=f"mean of {window}")
    axis.set(xlabel="training step", ylabel="mean squared error", yscale="log", title=title)
    for ticks in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        ticks("{x:g}")
    axis.legend()
    return figure


def points(clouds: Mapping[str, Tensor], limit: float = 1.6, colour: Tensor | None = None, size: float = 4,
           arrows: Mapping[str, Callable] | None = None) -> Figure:
    """Clouds of 2-D points (N, 2) side by side, each under its title, six a row at most.

    colour: a class for each point, an int, or a number for each, of which large ones are light; (N,), or (clouds, N).   arrows: name → a field v(x), drawn on a
    grid; long ones are shortened.
    """
    columns = min(len(clouds), 6 if len(clouds) != 8 else 4)
    figure, cells = axes(columns, -(-len(clouds) // columns), width=2.6, height=2.8, sharex=True, sharey=True)
    for i, (axis, (name, x)) in enumerate(zip(cells.flat, clouds.items())):
        tint = colour if colour is None or colour.ndim == 1 else colour[i]
        if colour is not None and tint is not None and colour.is_floating_point():
            axis.scatter(*x.T, s=size, c=tint, cmap="viridis", vmin=colour.min(), vmax=colour.max(), linewidths=0)         # one scale for all
        else:
            axis.scatter(*x.T, s=size, c=COLOURS[0] if tint is None else [(*COLOURS, GREY)[int(k) % 8] for k in tint], linewidths=0)
        if arrows and name in arrows:
            at = limit * cartesian_prod(*[linspace(-0.85, 0.85, 8, dtype=x.dtype)] * 2)
            field = arrows[name](at)
            field = field / (1 + field.norm(dim=1, keepdim=True))
            axis.quiver(*at.T.numpy(), *field.T.numpy(), angles="xy", scale_units="xy", scale=5.5 / limit, width=0.011, color=COLOURS[1])
        axis.set(title=name, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    for axis in cells.flat[len(clouds):]:
        axis.set_axis_off()
    for axis in cells[-1]:
        axis.set_xlabel("$x_1$")
    for axis in cells[:, 0]:
        axis.set_ylabel("$x_2$")
    return figure


def families() -> Figure:
    """Four ways from noise z to an image x: solid arrows are learnt and make the image, dashed ones serve the training."""
    figure, (row,) = axes(4, 1, 2.25, 2.5)
    kinds = (("GAN", "one leap; a critic says\n\"real\" or \"made\"", 4), ("VAE", "one leap; an encoder\nguesses the z of each x", 3),
             ("normalising flow", "one leap that can be\nundone exactly", 2), ("diffusion", "many small steps; the way\nto noise is not learnt", 0))
    for axis, (title, words, colour) in zip(row, kinds):
        small = title == "diffusion"
        places = (0, 1.4, 2.6, 4) if small else (0, 4)
        for x in places:
            axis.plot(x, 0, "o", markersize=9 if 0 < x < 4 else 24, markerfacecolor="white", markeredgecolor="black")
        for a, b in pairwise(places):
            start, end = a + (0.45 if a == 0 else 0.15), b - (0.45 if b == 4 else 0.15)
            head = {"arrowstyle": "<|-|>" if "flow" in title else "-|>", "shrinkA": 0, "shrinkB": 0}
            axis.annotate("", (end, 0.12), (start, 0.12), arrowprops={**head, "color": COLOURS[colour], "linewidth": 2.2})
            if small or title == "VAE":
                axis.annotate("", (start, -0.12), (end, -0.12), arrowprops={**head, "color": GREY, "linewidth": 1.2, "linestyle": "--"})
        if title == "GAN":
            axis.annotate("critic", (4, 0.32), (4, 0.85), ha="center", color="#555555", arrowprops={"arrowstyle": "<|-", "color": GREY, "linestyle": "--"})
        for x, name in ((0, "z"), (4, "x")):
            axis.text(x, 0, f"${name}$", ha="center", va="center", fontsize=13)
        axis.text(2, -0.55, words, ha="center", va="top", fontsize=10)
        axis.set(title=title, xlim=(-0.7, 4.7), ylim=(-1.2, 1.1))
        axis.axis("off")
    return figure


def chain(subject: str = "", images: Sequence[Tensor] = (), title: str = "") -> Figure:
    """A diffusion as a graphical model, noise x_T at the left and data x_0 at the right.  Solid arrows p are the way back, dashed arrows q the noising.

    `subject`, one of SUBJECTS, is drawn thick and in colour.  `images`: four, (C, H, W) in [-1, 1], for the circles of x_T, x_t, x_{t-1} and x_0.
    """
    from matplotlib.patches import Circle, FancyArrowPatch

    if subject not in ("", *SUBJECTS):
        raise ValueError(f"subject={subject!r} is no part of the chain. Take one of: {', '.join(map(repr, SUBJECTS))}.")
    places, radius = {"T": 0.0, "t": 3.3, "s": 6.3, "0": 9.6}, 0.62
    figure, ((axis,),) = axes(1, 1, 9.0, 2.8 + 0.3 * bool(title))
    axis.axis("off")
    stride = subject == "stride"
    names = ("$x_T$", "$x_t$", "$x_s$" if stride else "$x_{t-1}$", "$x_0$")
    for i, (x, name) in enumerate(zip(places.values(), names)):
        axis.add_patch(Circle((x, 0), radius, facecolor="white", edgecolor="black", linewidth=1.4, zorder=3))
        if len(images):
            pixels = denormalise(images[i].detach().cpu()).permute(1, 2, 0).numpy()
            half = 0.72 * radius                                                    # a square within the circle, corners and all
            axis.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255, extent=(x - half, x + half, -half, half), zorder=4)
            axis.text(x, -radius - 0.1, name, ha="center", va="top", fontsize=15)
        else:
            axis.text(x, 0, name, ha="center", va="center", fontsize=17, zorder=4)
    axis.set(xlim=(-0.8, 10.4), ylim=(-1.75, 1.75), aspect="equal")                # now, for imshow sets its own

    def arrow(a, b, bend, colour=None, dashed=False, high=0.3):
        """From circle a to circle b, leaving them at the height `high`: the way back above, the noising below."""
        (start, end), main = (places[a], places[b]), colour is not None
        side = (radius**2 - high**2) ** 0.5 + 0.03
        side = side if end > start else -side
        axis.add_patch(FancyArrowPatch((start + side, high), (end - side, high), connectionstyle=f"arc3,rad={bend if end < start else -bend}",
                                       arrowstyle="-|>", mutation_scale=22 if main else 14, shrinkA=0, shrinkB=0, zorder=5 if main else 2,
                                       color=colour or GREY, linewidth=3 if main else 1.3, linestyle=(0, (3, 2)) if dashed else "-"))

    def word(x, y, text, colour="#555555"):
        axis.text(x, y, text, ha="center", va="center", color=colour, fontsize=12 if colour == "#555555" else 15, zorder=6)

    red, blue, green = COLOURS[1], COLOURS[0], COLOURS[2]
    middle = (places["t"] + places["s"]) / 2
    p, q = red if subject in ("p", "guided", "stride") else None, blue if subject == "q" else None
    for a, b in (("T", "t"), ("s", "0")):
        arrow(a, b, 0.12)
        arrow(b, a, -0.12, dashed=True, high=-0.3)
        word((places[a] + places[b]) / 2, 0, "…")
    if subject != "posterior":
        arrow("t", "s", 0.25, p)
        given = "x_t, y" if subject == "guided" else "x_t"
        word(middle, 0.98 if p and not stride else 0.24, "stride" if stride else f"$p_\\theta(x_{{t-1}}\\,|\\,{given})$", p or "#555555")
    if not stride:
        arrow("s", "t", -0.25, q, dashed=True, high=-0.3)
        word(middle, -0.98 if q else -0.24, "$q(x_t\\,|\\,x_{t-1})$", q or "#555555")
    if subject == "marginal":
        arrow("0", "t", -0.25, blue, dashed=True, high=-0.55)
        word((places["t"] + places["0"]) / 2, -1.6, "$q(x_t\\,|\\,x_0)$", blue)
    if subject == "posterior":
        arrow("0", "s", 0.3, green, dashed=True, high=0.45)
        arrow("t", "s", 0.3, green, dashed=True, high=0.45)
        word(places["s"], 1.25, "$q(x_{t-1}\\,|\\,x_t, x_0)$", green)
    if subject in ("x_0", "stride"):
        arrow("t", "0", 0.25, green, high=0.55)
        word((places["t"] + places["0"]) / 2, 1.56, "$\\hat{x}_0$, as seen from $x_t$", green)
    if subject == "guided":
        word(middle, 1.58, "$y$: what is wanted", red)
    for x, text in ((places["T"], "noise"), (places["0"], "data")):
        word(x, radius + 0.28, text)
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def triangles(named: Mapping[str, tuple[float, float]], across: str, upright: str, long: str) -> Figure:
    """Right-angled triangles of one long side: name → (the side across, the upright side).   `across`, `upright` and `long` say what the three sides are."""
    sides = {name: (float(x), float(y)) for name, (x, y) in named.items()}
    lengths = [np.hypot(*side) for side in sides.values()]
    if not sides or np.ptp(lengths) > 1e-3 * max(lengths):
        raise ValueError(f"The long sides are {', '.join(f'{r:.3f}' for r in lengths) or 'missing'}. Draw triangles that share one: they lie on one circle.")
    r, turn = lengths[0], np.linspace(0, np.pi / 2, 100)
    figure, ((axis,),) = axes(1, 1, 4.9, 4.3)
    axis.plot(r * np.cos(turn), r * np.sin(turn), color=GREY, linewidth=1, zorder=1)
    for (name, (x, y)), colour in zip(sides.items(), COLOURS):
        axis.plot([x, x], [0, y], color=colour, linestyle="--", linewidth=1.8, zorder=2)
        axis.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0})
        axis.text(x + 0.03 * r, y + 0.03 * r, name, color=colour, fontsize=12, va="bottom")
    axis.set(xlim=(0, 1.42 * r), ylim=(0, 1.15 * r), aspect="equal", xlabel=across, ylabel=upright, title=long)
    return figure


def jensen(low: float, high: float) -> Figure:
    """Why the logarithm of an average is above the average of the logarithms: for two values, the curve and its chord."""
    mean, logs = (low + high) / 2, (np.log(low) + np.log(high)) / 2
    figure, ((axis,),) = axes(1, 1, 7, 3.6)
    w = np.linspace(0.6 * low, 1.15 * high, 400)
    axis.plot(w, np.log(w), color=COLOURS[0], linewidth=2, label="the curve, log w")
    axis.plot([low, high], np.log([low, high]), "o-", color=COLOURS[1], linewidth=1.6, label="the chord between two values")
    axis.annotate("", (mean, np.log(mean)), (mean, logs), arrowprops={"arrowstyle": "<|-|>", "color": "black", "shrinkA": 0, "shrinkB": 0})
    axis.plot([mean, mean], [np.log(mean), logs], "s", color="black", markersize=5)
    axis.annotate(f"log of the average, {np.log(mean):.2f}".replace("-", "−"), (mean, np.log(mean)), (0, 9), textcoords="offset points", ha="right")
    axis.annotate(f"average of the logs, {logs:.2f}".replace("-", "−"), (mean, logs), (9, -13), textcoords="offset points")
    axis.set(title="a curve that bends down lies above its chords", xlabel="w", ylabel="log w")
    axis.legend(loc="lower right")
    return figure


def u_net() -> Figure:
    """The U-Net of the digits from left to right, each part at its size; dashed, what the skips carry across."""
    parts = (("conv", 0, 0, "1 → 32"), ("block", 1, 0, "32 → 32"), ("halve", 2, 1, "32 → 32"), ("block +\nattention", 3, 1, "32 → 64"),
             ("block +\nattention", 4.15, 2, "64 → 64"), ("block", 5.35, 2, "64 → 64"), ("block +\nattention", 6.6, 1, "64+64 → 64"),
             ("block +\nattention", 8, 1, "64+32 → 64"), ("double", 9.2, 0, "64 → 64"), ("block", 10.5, 0, "64+32 → 32"), ("block", 12, 0, "32+32 → 32"),
             ("conv", 13.3, 0, "32 → 1"))                       # what, at which place and level, channels in → out
    tints = {"conv": "#DDDDDD", "block": "#BFE0F2", "block +\nattention": "#F7D9B0", "halve": "#BFE5D6", "double": "#BFE5D6"}
    height = (2.4, 0.7, -0.6)                                   # of a level
    figure, ((axis,),) = axes(1, 1, 13, 4.9)
    axis.plot([x for _, x, *_ in parts], [height[level] for _, _, level, _ in parts], color="black", linewidth=1.5, zorder=1)
    for start, end, level, rise in ((0, 12, 0, 1.15), (1, 10.5, 0, 0.8), (2, 8, 1, 1.0), (3, 6.6, 1, 0.65)):
        line, top = {"color": COLOURS[0], "linestyle": "--", "linewidth": 1.6}, height[level] + rise
        axis.plot([start, start, end], [height[level], top, top], zorder=1, **line)
        axis.annotate("", (end, height[level] + 0.25), (end, top), arrowprops={"arrowstyle": "->", "shrinkA": 0, **line})
        axis.text((start + end) / 2, top, f"skip, {64 if start == 3 else 32} channels", ha="center", va="center", fontsize=10, color=COLOURS[0],
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    for what, x, level, channels in parts:
        axis.text(x, height[level], f"{what}\n{channels}", ha="center", va="center", fontsize=10,
                  bbox={"boxstyle": "round,pad=0.35", "facecolor": tints[what], "edgecolor": "black", "linewidth": 0.8})
    for y, name in zip(height, ("8 × 8 pixels", "4 × 4 pixels", "the middle,\nstill 4 × 4")):
        axis.text(-1, y, name, ha="right", va="center", fontsize=12)
    for x, name in ((0, "$x_t$"), (13.3, "the answer")):
        axis.text(x, height[0] - 0.62, name, ha="center", va="center", fontsize=13)
    axis.set(title="the U-Net of the digits: down, across and up (every block also hears the time and the label)", xlim=(-2.9, 14), ylim=(-1.1, 3.8))
    axis.axis("off")
    return figure


def gif(frames: Sequence, path: str | Path, columns: int = 10, enlarge: int = 6, milliseconds: int = 60) -> Path:
    """A GIF of batches (N, C, H, W) in [-1, 1], or of Figures of one size; it holds its last frame.   """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(_moving(frames, "GIF", columns, enlarge, milliseconds))
    return Path(path)


def animation(frames: Sequence, seconds: float = 3.0, columns: int = 10, enlarge: int = 3, path: str | Path | None = None):
    """The same for a notebook: as a cell's last line it plays by itself, again and again.   `path` keeps it as a file too.

    It is an animated PNG.  Every viewer of notebooks shows a PNG, where many leave a GIF out; its colours are the picture's own; and noise that was enlarged,
    which a GIF packs badly, takes a third of the bytes.
    """
    from IPython.display import Image

    moving = _moving(frames, "PNG", columns, enlarge, max(20, round(1000 * seconds / len(frames))))
    if path is not None:
        Path(path).write_bytes(moving)
    return Image(data=moving, format="png")


def plain(text: str) -> str:
    """A user's text, such as a class called "5$ or 10$", for a title: a $ would begin a formula."""
    return text.encode("utf-8", "replace").decode().replace("$", r"\$")


def _moving(frames: Sequence, kind: str, columns: int, enlarge: int, milliseconds: int) -> bytes:
    """Grey or colour, as it is in a PNG; a GIF keeps 256 greys, and has 256 colours a frame."""
    from PIL import Image
    from torchvision.utils import make_grid

    def picture(frame):
        if isinstance(frame, Figure):
            canvas = FigureCanvasAgg(frame)
            canvas.draw()
            canvas.draw()                                       # axes of a fixed aspect find their place at the second drawing; after one, titles are cut off
            return Image.fromarray(np.asarray(frame.canvas.buffer_rgba())[..., :3])
        tiles = make_grid(denormalise(frame.detach().cpu()), nrow=columns, padding=1, pad_value=255).repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)
        return Image.fromarray(tiles[0].numpy() if frame.shape[1] == 1 else tiles.permute(1, 2, 0).numpy())

    pictures = [picture(frame) for frame in frames]
    durations = [milliseconds] * (len(pictures) - 1) + [max(1500, milliseconds)]
    file = io.BytesIO()
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)
    return file.getvalue()


def _show(axis, pixels: np.ndarray) -> None:
    """uint8 (H, W, 1 or 3)"""
    axis.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)
