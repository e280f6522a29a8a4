"""The plots of one run: each takes its tables and gives a Plot, or None where there is none.

`PLOTS` is their order on the page. A caption says in one sentence what is to be seen, with the
figures of this very run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from protocol.units import NS_PER_MS
from simnet.reports.drawing import COLOURS, INK, cdf, cdf_axes, figure, legend
from simnet.reports.plots_market import Plot as Plot
from simnet.reports.plots_market import (
    exposure,
    failures,
    prices,
    revenue,
    shares,
    utilisation,
)
from simnet.reports.tables_read import Array, RunTables

REGIONS_DRAWN_MAX: Final = len(COLOURS)
GROUPS_DRAWN_MAX: Final = 5


def propagation(run: RunTables) -> Plot | None:
    """How long until a gossip message is where, by the receiver's region."""
    deliveries = run["deliveries"]
    latency_ms = deliveries["latency_ns"] / NS_PER_MS
    others = deliveries["hops"] > 0
    latency_ms, where = latency_ms[others], run.regions[deliveries["node"][others]]
    if not len(latency_ms):
        return None
    drawn, axes = figure()
    names, counts = np.unique(where, return_counts=True)
    medians = {name: float(np.median(latency_ms[where == name])) for name in names}
    chosen = names[np.argsort(-counts)][:REGIONS_DRAWN_MAX]
    ordered = sorted(chosen, key=medians.__getitem__)
    for name, colour in zip(ordered, COLOURS, strict=False):
        cdf(axes, latency_ms[where == name], name, colour, linewidth=1.2)
    cdf(axes, latency_ms, "all", INK, linewidth=2.2)
    axes.set_xlabel("ms from publication to admission")
    axes.set_ylabel("share of the region's nodes, %")
    axes.set(xlim=(0, float(np.quantile(latency_ms, 0.999))), ylim=(0, 101))
    legend(axes, loc="lower right", ncols=2)
    half, most = np.quantile(latency_ms, [0.5, 0.99])
    first, last = ordered[0], ordered[-1]
    caption = f"Half of all copies that count are there after {half:.0f} ms, 99 % after "
    caption += f"{most:.0f} ms."
    if first != last:
        caption += (
            f" {first} hears first ({medians[first]:.0f} ms in the median), "
            f"{last} last ({medians[last]:.0f} ms)."
        )
    return Plot("propagation", "Propagation by region", caption, drawn)


def _times(run: RunTables, column: str) -> list[tuple[str, Array]]:
    jobs = run["jobs"]
    known = jobs[column] >= 0
    times_ms, groups = jobs[column][known] / NS_PER_MS, jobs["group"][known]
    names = run.groups_of("requester")[:GROUPS_DRAWN_MAX]
    return [(name, times_ms[groups == name]) for name in names if (groups == name).any()]


def latencies(run: RunTables) -> Plot | None:
    """Request to award, and request to the first text, by group."""
    awards, texts = _times(run, "award_ns"), _times(run, "first_text_ns")
    if not awards:
        return None
    drawn, (left, right) = figure(2)
    for axes, found, title in ((left, awards, "request → award"), (right, texts, "→ first text")):
        for (name, times_ms), colour in zip(found, COLOURS, strict=False):
            cdf(axes, times_ms, name, colour)
        cdf_axes(axes, "ms", [times for _, times in found])
        axes.set_title(title, fontsize=10)
        legend(axes, loc="lower right")
    right.set_ylabel("")
    awarded = np.concatenate([times for _, times in awards])
    # As in the summary: a time that somebody waited.
    half, most = np.quantile(awarded, [0.5, 0.99], method="higher")
    caption = f"Awarded after {half:.0f} ms in the median, {most:.0f} ms at the 99th percentile"
    if texts:
        text_ms = float(np.median(np.concatenate([times for _, times in texts])))
        caption += f"; the first text comes after {text_ms:.0f} ms in the median"
    return Plot("latency", "How long people wait", caption + ".", drawn)


def duplicates(run: RunTables) -> Plot | None:
    """Copies that came to nodes that had the message already, for each node it reached."""
    messages = run["messages"]
    reached = messages["reached"] > 1
    if not reached.any():
        return None
    each = messages["duplicates"][reached] / messages["reached"][reached]
    kinds = messages["kind"][reached]
    drawn, (left, right) = figure(2)
    low, high = float(each.min()), float(each.max())
    edges = np.linspace(low - 0.5, high + 0.5, 31)
    names = [str(kind) for kind in np.unique(kinds)]
    parts = [each[kinds == name] for name in names]
    left.hist(parts, edges, stacked=True, color=COLOURS[: len(names)], label=names)
    left.set_xlabel("spare copies a node")
    left.set_ylabel("messages")
    legend(left, loc="upper left")
    hops = run["deliveries"]["hops"]
    counts = np.bincount(hops[hops > 0]) if (hops > 0).any() else np.zeros(1)
    right.bar(np.arange(len(counts)), counts * 100 / max(1, counts.sum()), color=COLOURS[2])
    right.set_xlabel("hops from the origin")
    right.set_ylabel("share of deliveries, %")
    right.xaxis.get_major_locator().set_params(integer=True)
    everyone = run.summary["nodes"]
    reach = float(messages["reached"][reached].mean()) * 100 / everyone
    caption = (
        f"A node gets a message {1 + float(each.mean()):.1f} times on average, "
        f"and a message gets to {reach:.1f} % of the nodes."
    )
    return Plot("duplicates", "Spare copies and hops", caption, drawn)


def traffic(run: RunTables) -> Plot | None:
    """Requests as they come and how they end, over time."""
    jobs = run["jobs"]
    if not len(jobs["at_ns"]):
        return None
    asked_s = jobs["at_ns"] / 1e9
    ended_s = (jobs["at_ns"] + jobs["end_ns"]) / 1e9
    edges = np.linspace(float(asked_s.min()), float(ended_s.max()) + 1e-9, 61)
    drawn, axes = figure()
    width = edges[1] - edges[0]
    done = jobs["outcome"] == "done"
    axes.step(edges[:-1], np.histogram(asked_s, edges)[0] / width, where="post", label="asked")
    axes.lines[0].set_color(INK)
    good = np.histogram(ended_s[done], edges)[0] / width
    bad = np.histogram(ended_s[~done], edges)[0] / width
    axes.bar(edges[:-1], good, width, align="edge", color=COLOURS[2], label="done", alpha=0.75)
    if bad.any():
        axes.bar(*(edges[:-1], bad, width, good), align="edge", color=COLOURS[6], label="failed")
    axes.set_xlabel("virtual time, s")
    axes.set_ylabel("a second")
    legend(axes, loc="upper right")
    running = np.searchsorted(np.sort(asked_s), edges, side="right") - np.searchsorted(
        np.sort(ended_s), edges, side="right"
    )
    caption = f"{len(asked_s)} requests, {int(done.sum())} done; at most {int(running.max())} "
    return Plot("traffic", "Requests over time", caption + "were open at once.", drawn)


PLOTS: Final[tuple[Callable[[RunTables], Plot | None], ...]] = (
    traffic,
    latencies,
    propagation,
    duplicates,
    prices,
    shares,
    utilisation,
    failures,
    revenue,
    exposure,
)


@dataclass(frozen=True, slots=True)
class Missing:
    """A plot that this run has no data for."""

    name: str


def draw(run: RunTables) -> tuple[list[Plot], list[Missing]]:
    """All plots of a run, and those that it has nothing for."""
    plots: list[Plot] = []
    missing: list[Missing] = []
    for make in PLOTS:
        plot: Any = make(run)
        if plot is None:
            missing.append(Missing(make.__name__))
        else:
            plots.append(plot)
    return plots, missing
