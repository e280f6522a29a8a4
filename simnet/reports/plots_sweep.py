"""The plots of a sweep: each measure by point with its confidence interval over seeds.

An interval is Student's for 95 %: mean ± t s/√n; with one seed there is none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from simnet.reports.drawing import COLOURS, figure, plain_numbers
from simnet.reports.plots_market import Plot

# Student's t for 95 % on both sides, by degrees of freedom from 1.
T_95: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
T_MANY: Final = 1.96

MEASURES: Final = (
    ("award_ms.p50", "request to award, median, ms"),
    ("award_ms.p90", "request to award, 90th percentile, ms"),
    ("award_ms.p99", "request to award, 99th percentile, ms"),
    ("first_text_ms.p50", "request to first text, median, ms"),
    ("regret.mean", "regret against the best seller, mean, %"),
    ("bids_sent_a_request", "bids sent, a request"),
    ("bids_a_request", "bids that came in time, a request"),
    ("done_percent", "requests done, %"),
    ("paid_ucr_a_job", "paid for a job, ucr"),
    ("messages_a_request", "gossip messages a request"),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and how far the truth may be from it; nan for unknown."""

    mean: float
    half: float


def interval(values: Sequence[float]) -> Interval:
    """The mean of some seeds' values, with its 95 % interval."""
    count = len(values)
    if not count:
        return Interval(math.nan, math.nan)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, math.nan)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    t = T_95[count - 2] if count - 2 < len(T_95) else T_MANY
    return Interval(mean, t * spread / math.sqrt(count))


def measured(summary: Mapping[str, Any]) -> dict[str, float]:
    """The measures of one run that there are."""
    requests, done = summary["requests"], summary["done"]
    found: dict[str, float] = {}
    for name in ("award_ms", "first_text_ms", "regret"):
        found |= {f"{name}.{part}": value for part, value in summary.get(name, {}).items()}
    if requests:
        found["bids_sent_a_request"] = summary["bids_sent"] / requests
        found["bids_a_request"] = summary["bids"] / requests
        found["done_percent"] = done * 100 / requests
        found["messages_a_request"] = summary["gossip"]["messages"] / requests
    if done:
        found["paid_ucr_a_job"] = summary["paid_ucr"] / done
    return found


def by_point(
    points: Sequence[str], runs: Sequence[tuple[int, Mapping[str, Any]]]
) -> list[dict[str, Interval]]:
    """For each point its measures over the seeds."""
    rows: list[list[dict[str, float]]] = [[] for _ in points]
    for point, summary in runs:
        rows[point].append(measured(summary))
    return [
        {
            name: interval([row[name] for row in seeds if name in row])
            for name in dict.fromkeys(name for row in seeds for name in row)
        }
        for seeds in rows
    ]


def draw(points: Sequence[str], found: Sequence[Mapping[str, Interval]]) -> list[Plot]:
    """Each measure that differs between points, and what waiting buys."""
    plots = [_trade(points, found)]
    for name, label in MEASURES:
        known = [row[name].mean for row in found if name in row]
        if not known or max(known) - min(known) <= 1e-9 * max(map(abs, known)):
            continue
        drawn, axes = figure()
        drawn.set_size_inches(6.4, max(2.2, 0.9 + 0.28 * len(points)))
        _dots(axes, [row.get(name, Interval(math.nan, math.nan)) for row in found])
        axes.set_yticks(range(len(points)), points)
        axes.set_ylim(len(points) - 0.5, -0.5)
        axes.set_xlabel(label)
        if min(known) > 0 and max(known) / min(known) > 20:
            axes.set_xscale("log")
            plain_numbers(axes.xaxis)
        else:
            axes.set_xlim(left=min(0, *known))
        means = [row[name].mean if name in row else math.nan for row in found]
        low, high = int(np.nanargmin(means)), int(np.nanargmax(means))
        caption = f"From {means[low]:.4g} ({points[low]}) to {means[high]:.4g} ({points[high]})."
        title = label[0].upper() + label[1:]
        plots.append(Plot(name.replace(".", "-"), title, caption, drawn))
    return [plot for plot in plots if plot is not None]


# Of a name from its dot, in points, the best first.
_PLACES: Final = (
    *((5, 4, "left"), (5, -10, "left"), (-5, 4, "right"), (-5, -10, "right")),
    *((5, 15, "left"), (5, -21, "left"), (-5, 15, "right"), (-5, -21, "right")),
)


def _dots(axes: Any, values: Sequence[Interval]) -> None:
    for row, value in enumerate(values):
        half = 0.0 if math.isnan(value.half) else value.half
        axes.errorbar(value.mean, row, xerr=half, fmt="o", color=COLOURS[0], capsize=3)


def _trade(points: Sequence[str], found: Sequence[Mapping[str, Interval]]) -> Any:
    """How long an award takes against how good it is; None where neither is known."""
    drawn, axes = figure()
    drawn.set_size_inches(6.4, 4.4)
    labels: list[Any] = []
    for number, (point, row) in enumerate(zip(points, found, strict=True)):
        across, up = row.get("award_ms.p50"), row.get("regret.mean")
        if across is None or up is None:
            continue
        colour = COLOURS[number % len(COLOURS)]
        halves = [0.0 if math.isnan(one.half) else one.half for one in (across, up)]
        axes.errorbar(
            *(across.mean, up.mean, halves[1], halves[0]), fmt="o", color=colour, elinewidth=0.8
        )
        labels.append(
            axes.annotate(
                point, (across.mean, up.mean), (0, 0), textcoords="offset points", fontsize=7.5
            )
        )
    if len(labels) < 2:
        return None
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.2)
    axes.set_xlabel("request to award, median, ms")
    axes.set_ylabel("regret, mean, %")
    _place(axes, labels)
    caption = "Down and to the left is better; bars are 95 % intervals over seeds."
    return Plot("trade", "What waiting buys", caption, drawn)


def _place(axes: Any, labels: Sequence[Any]) -> None:
    """Put names beside their dots, where none covers another or leaves the picture."""
    axes.figure.draw_without_rendering()  # what will be where
    taken: list[Any] = []
    for label in labels:
        found = []  # where it would stay in the picture
        for place in _PLACES:
            box = _move(label, place)
            if axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max):
                found.append(place)
                if not any(box.overlaps(other) for other in taken):
                    break
        else:
            box = _move(label, (found or _PLACES)[0])
        taken.append(box)


def _move(label: Any, place: tuple[int, int, str]) -> Any:
    """What a name covers there."""
    right, up, side = place
    label.xyann = (right, up)
    label.set_horizontalalignment(side)
    return label.get_window_extent()
