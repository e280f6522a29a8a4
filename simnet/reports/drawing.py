"""How plots look: one palette and style, for the light and the dark page.

Colours of text and lines are written into the SVG as variables of the page (`--ink`, `--faint`),
so one drawing serves both. Data is thinned before it is drawn: a page stays under 2 MB.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from simnet.extra import need
from simnet.reports.tables_read import Array

COLOURS: Final = (
    "#4c7fd6",
    "#e0813a",
    "#2fa37c",
    "#c45bb4",
    "#b59a23",
    "#4fb3c8",
    "#d8565e",
    "#8d79dd",
    "#7f8c5a",
    "#b5785a",
    "#5f8fa8",
    "#9a9a9a",
    "#3fbf4f",
)
BAD: Final = "#d8443c"
INK: Final = "#010203"  # replaced by the page's own colours
FAINT: Final = "#010204"
STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "simnet",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "xtick.color": INK,
    "ytick.color": INK,
}
POINTS_MAX: Final = 240


def figure(panels: int = 1) -> tuple[Any, Any]:
    """A new figure of the house's size, and its axes (a list when there are more than one)."""
    matplotlib = need("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update(STYLE)
    drawn = need("matplotlib.figure").Figure(figsize=(6.4, 3.6), layout="constrained")
    return drawn, drawn.subplots(1, panels)


def to_svg(drawn: Any) -> str:
    """The figure as an SVG element that takes its colours from the page."""
    file = io.StringIO()
    drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head = r'<svg [^>]*?viewBox="([^"]*)"[^>]*>'
    text = re.sub(head, r'<svg viewBox="\1" role="img">', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--face)", text)
    text = text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    return re.sub(r"\n\s*", "\n", text)


def to_png(drawn: Any) -> bytes:
    """The figure as a picture on white; its ink is nearly black as it is."""
    for axes in drawn.axes:
        for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
            line.set_color("#8a939e")
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=110, facecolor="#ffffff")
    return file.getvalue()


# --- shapes that recur -----------------------------------------------------------------------


def cdf(axes: Any, values: Array, label: str, colour: str, **style: Any) -> None:
    """The share of `values` at or below each, as a line of at most POINTS_MAX points."""
    if not len(values):
        return
    ordered = np.sort(values)
    parts = np.linspace(0, 1, min(POINTS_MAX, len(ordered) + 1))
    at = np.clip(np.ceil(parts * len(ordered)).astype(int) - 1, 0, len(ordered) - 1)
    axes.plot(ordered[at], parts * 100, label=label, color=colour, **style)


def cdf_axes(axes: Any, unit: str, values: Sequence[Array]) -> None:
    """Percent upwards; to the right a scale that shows both the usual and the rare."""
    known = np.concatenate([np.asarray(one) for one in values if len(one)] or [np.zeros(1)])
    low, high = np.quantile(known, [0.01, 1.0])
    if low > 0 and high / low > 20:
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        axes.set_xlim(left=low)
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    axes.set_ylim(0, 101)
    axes.set_ylabel("share, %")


def plain(value: float, _position: int = 0) -> str:
    """A number as one says it: 1.5 k, 20, 0.3."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def plain_numbers(axis: Any) -> None:
    """Ticks without powers of ten; on a logarithmic scale at 1, 2 and 5."""
    ticker = need("matplotlib.ticker")
    if axis.get_scale() == "log":
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=12))
        axis.set_minor_formatter(ticker.NullFormatter())
    axis.set_major_formatter(ticker.FuncFormatter(plain))


def legend(axes: Any, **where: Any) -> None:
    """A legend, when there is more than one thing to tell apart."""
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(**({"loc": "best", "ncols": 1 + (len(labels) > 6)} | where))
