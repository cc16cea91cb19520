"""How figures look, and how they are written: SVG and PNG, and SVG that takes a page's colours.

Every figure is drawn once, on white. In the page the few colours of the palette become variables of
its style sheet, so that the same drawing reads on a dark page too.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memrl.evaluation.report.numbers import IN_FOCUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 4.6  # a page shows it between a phone's width and one and a half times its size
INK, GRID, PAPER = "#1b1f24", "#d7dbe0", "#ffffff"
SERIES = (
    *("#2a62c9", "#c2570c", "#1b7f4b", "#7b3fb8"),
    *("#c02942", "#0e7c86", "#7a5a2e", "#b83280"),
)
SERIES_DARK = (
    *("#7fb0ff", "#ff9d5c", "#5ed19a", "#c39bff"),
    *("#ff8095", "#4fd0dc", "#d0b07a", "#f58cc6"),
)
VARIABLES = {INK: "--ink", GRID: "--grid", PAPER: "--paper"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES)
}
"""Colour of a drawing -> variable of the page's style sheet that stands for it."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h")  # with 8 colours no pair comes twice in 72
_LEGEND_CHARS = 27  # of a line in one of two columns
_PNG_DPI = 160


@dataclass(frozen=True)
class Drawing:
    """A figure with all that belongs to it.

    Attributes:
        key: name of its files. title: of its caption. alt: what it shows, for who cannot see it.
        columns, rows: the numbers that are drawn, as text.
        figure: the drawing; what comes from another process has the SVG file alone.
    """

    key: str
    title: str
    alt: str
    columns: list[str]
    rows: list[list[str]]
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """The SVG file; first asked for inside `theme`."""
        file = io.StringIO()
        about = {"Date": None, "Title": self.title}
        self.figure.savefig(file, format="svg", metadata=about)
        self.figure.set_layout_engine("none")  # laid out once is enough
        return file.getvalue()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "svg": self.svg, "figure": None}


@dataclass(frozen=True)
class Style:
    """How the points and lines of a policy look, the same in all figures of a report."""

    color: str
    marker: str
    dashes: str
    is_hollow: bool
    in_focus: bool

    def band(self) -> dict[str, Any]:
        """Keyword arguments of the band of a line; a dozen of them lie on each other."""
        return {"color": self.color, "alpha": 0.16 if self.in_focus else 0.05, "linewidth": 0}

    def line(self) -> dict[str, Any]:
        """Keyword arguments of a line with its points."""
        return {"linestyle": self.dashes, **self.point()}

    def point(self) -> dict[str, Any]:
        """Keyword arguments of points."""
        return {
            "color": self.color,
            "marker": self.marker,
            "markersize": 4.5,
            "markerfacecolor": PAPER if self.is_hollow else self.color,
            "markeredgecolor": self.color,
            "linewidth": 1.3,
        }


def styles(policies: Sequence[tuple[str, str]]) -> dict[str, Style]:
    """Style of each policy by name.

    Args:
        policies: name and kind of each, those of a name given again left out.
    """
    dashes = {"learned": "-", "prompted": "-", "bound": ":", "reference": "-."}
    # What is learned comes first, so that it has the plainest colours; bounds have none.
    order = {"learned": 0, "prompted": 1, "bound": 3}
    kinds = dict(policies)
    names = sorted(kinds, key=lambda name: order.get(kinds[name], 2))
    return {
        name: Style(
            INK if kinds[name] == "bound" else SERIES[place % len(SERIES)],
            _MARKERS[place % len(_MARKERS)],
            dashes.get(kinds[name], "--"),
            kinds[name] == "bound",
            kinds[name] in IN_FOCUS,
        )
        for place, name in enumerate(names)
    }


def plain_label(text: str) -> str:
    """A label that matplotlib draws as it is: one that begins with "_" it would leave out."""
    return f" {text}" if text.startswith("_") else text


def wrapped(text: str, width: int = _LEGEND_CHARS) -> str:
    """The same over several lines, none longer than `width`."""
    return plain_label("\n".join(textwrap.wrap(text, width, break_long_words=True)) or text)


@contextmanager
def theme() -> Iterator[None]:
    """Fonts, sizes and colours of all figures, while they are drawn and written."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rc("font", size=8)
        matplotlib.rc("axes", titlesize=8, labelsize=8, labelcolor=INK, edgecolor=INK)
        matplotlib.rc("axes", linewidth=0.6, grid=True, axisbelow=True, facecolor=PAPER)
        matplotlib.rc("axes.spines", top=False, right=False)
        matplotlib.rc("xtick", labelsize=7, color=INK)
        matplotlib.rc("ytick", labelsize=7, color=INK)
        matplotlib.rc("grid", color=GRID, linewidth=0.6)
        matplotlib.rc("legend", fontsize=7, frameon=False)
        matplotlib.rc("figure", facecolor=PAPER)
        matplotlib.rc("text", color=INK, parse_math=False)  # a name with two "$" is a name
        matplotlib.rc("svg", fonttype="none", hashsalt="memrl")  # the same figure, the same file
        yield


def new_figure(height_in: float) -> Figure:
    """An empty figure of the usual width; height_in: in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Laid out for SVG; as pixels a text may be a few per cent wider.
    return Figure(figsize=(WIDTH_IN, height_in), layout=ConstrainedLayoutEngine(w_pad=0.1))


def new_axes(height_in: float, legend_labels: Sequence[str] = ()) -> tuple[Figure, Axes]:
    """A figure of one plot, with room under it for a legend.

    Args:
        height_in: of the plot, in inches. legend_labels: as `wrapped`.
    """
    lines = [label.count("\n") + 1 for label in legend_labels]
    columns = [sum(lines[: (len(lines) + 1) // 2]), sum(lines[(len(lines) + 1) // 2 :])]
    figure = new_figure(height_in + 0.135 * max(columns))
    return figure, figure.add_subplot()


def new_panels(height_in: float, count: int) -> tuple[Figure, Sequence[Axes]]:
    """A figure of plots side by side, which have their rows in common; height_in: in inches."""
    figure = new_figure(height_in)
    return figure, figure.subplots(1, count, sharey=True, squeeze=False)[0]


def add_legend(figure: Figure, axes: Axes) -> None:
    """Name what is drawn under the plot, in two columns."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=2, handlelength=2.6, columnspacing=1.2
    )


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write a figure as `<key>.svg` and `<key>.png`.

    Raises:
        OSError: if they cannot be written.
    """
    paths = [folder / f"{drawing.key}.svg", folder / f"{drawing.key}.png"]
    paths[0].write_text(drawing.svg, encoding="utf-8", newline="")
    drawing.figure.savefig(paths[1], dpi=_PNG_DPI)
    return paths


def inline_svg(drawing: Drawing) -> str:
    """The `<svg>` element for a page: its colours are variables and its ids are its own."""
    svg = drawing.svg
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Only attributes: a text that looks like a colour or an id stays as it is.
    svg = re.sub(r'(?<= style=")[^"]*', lambda found: _with_variables(found[0]), svg)
    svg = re.sub(r'(?<= id=")', f"{drawing.key}-", svg)
    svg = re.sub(r'(?<= xlink:href="#)', f"{drawing.key}-", svg)
    svg = re.sub(r'(?<= clip-path="url\(#)', f"{drawing.key}-", svg)
    head = re.match(r"<svg[^>]*>", svg)
    assert head is not None
    box = re.search(r'viewBox="[^"]*"', head[0])
    assert box is not None
    opening = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" '
        f'aria-label="{escape(drawing.alt)}">'
    )
    return opening + svg[head.end() :]


def _with_variables(style: str) -> str:
    for color, variable in VARIABLES.items():
        style = style.replace(color, f"var({variable})")
    return style
