"""The plots of a run's market: prices, shares, machines, failures, revenue, what is at stake."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from protocol.units import UCR_PER_CREDIT, format_credits
from simnet.reports.drawing import BAD, COLOURS, FAINT, figure, legend, plain_numbers
from simnet.reports.tables_read import Array, RunTables, gini, hhi, seconds

LINES_MAX: Final = 8
BINS: Final = 60


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its name (of the file), title and caption."""

    name: str
    title: str
    caption: str
    drawn: Any


def _over_time(times_s: Array, values: Array, reduce: Any) -> tuple[Array, Array]:
    """`reduce` of the values in each of at most BINS equal parts of time; empty parts left out."""
    edges = np.linspace(float(times_s.min()), float(times_s.max()) + 1e-9, BINS + 1)
    part = np.clip(np.digitize(times_s, edges) - 1, 0, BINS - 1)
    filled = np.unique(part)
    return (edges[:-1] + edges[1:])[filled] / 2, np.array(
        [reduce(values[part == one]) for one in filled]
    )


def _selling(run: RunTables) -> list[tuple[str, Array]]:
    """(label, providers) by group, and by first model where the scenario sells several."""
    nodes = run["nodes"]
    first = np.array([str(models).partition(",")[0] for models in nodes["models"]])
    several = len({*first[run.providers]}) > 1
    found = []
    for group in run.groups_of("provider"):
        inside = nodes["group"] == group
        for model in dict.fromkeys(first[inside].tolist()):
            label = f"{group}: {model}" if several else group
            found.append((label, nodes["node"][inside & (first == model)]))
    return found


def prices(run: RunTables) -> Plot | None:
    """Prices asked over time, by group of providers."""
    series = run["series"]
    asked = series["output_price_ucr"] > 0
    if not asked.any():
        return None
    node, price = series["node"][asked], series["output_price_ucr"][asked] / UCR_PER_CREDIT
    at_s = seconds(series["at_ns"][asked])
    drawn, axes = figure()
    moved = []
    for (label, members), colour in zip(_selling(run)[:LINES_MAX], COLOURS, strict=False):
        of = np.isin(node, members)
        if not of.any():
            continue
        times, middle = _over_time(at_s[of], price[of], np.median)
        low = _over_time(at_s[of], price[of], lambda part: np.quantile(part, 0.1))[1]
        high = _over_time(at_s[of], price[of], lambda part: np.quantile(part, 0.9))[1]
        axes.fill_between(times, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(times, middle, color=colour, label=label)
        moved.append((label, middle[-1] / middle[0] - 1))
    axes.set_yscale("log" if price.max() / price.min() > 15 else "linear")
    plain_numbers(axes.yaxis)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.set_xlabel("virtual time, s")
    axes.set_ylabel("credits for 1 M output tokens")
    legend(axes)
    label, most = max(moved, key=lambda one: abs(one[1]))
    caption = "Medians, and the middle 80 %."
    if abs(most) >= 0.01:
        caption += f" {label} moved most: {most:+.0%} from start to end."
    else:
        caption += " No group moved its prices."
    return Plot("prices", "Prices asked", caption, drawn)


def shares(run: RunTables) -> Plot | None:
    """Who earned how much: ordered bars, and Lorenz's curve."""
    revenue_ucr = run.revenue_ucr
    if not revenue_ucr.sum():
        return None
    order = np.argsort(-revenue_ucr, kind="stable")
    percent = revenue_ucr[order] * 100 / revenue_ucr.sum()
    drawn, (left, right) = figure(2)
    ranks = np.arange(1, len(order) + 1)
    pairs = zip(
        run.by_group(run.groups_of("provider"), run.providers[order]), COLOURS, strict=False
    )
    for (group, inside), colour in pairs:
        left.bar(ranks[inside], percent[inside], 1.0, color=colour, label=group)
    left.set_xlabel("provider, by rank")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylabel("share of revenue, %")
    legend(left, loc="upper right")
    grown = np.concatenate([[0.0], np.cumsum(percent[::-1])])
    held = np.linspace(0, 100, len(grown))
    right.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle="--")
    right.plot(held, grown, color=COLOURS[0])
    right.fill_between(held, grown, held, color=COLOURS[0], alpha=0.15, linewidth=0)
    right.set_xlabel("poorest providers, %")
    right.set_ylabel("their share of revenue, %")
    index, unequal = hhi(revenue_ucr), gini(revenue_ucr)
    right.set_title(f"HHI {index} · Gini {unequal:.2f}", fontsize=10)
    even = round(10_000 / len(revenue_ucr))
    idle = int((revenue_ucr == 0).sum())
    caption = (
        f"HHI {index} (alike would be {even}, a monopoly 10,000), Gini {unequal:.2f}; "
        f"{idle} of {len(revenue_ucr)} providers earned nothing."
    )
    return Plot("shares", "Who gets the business", caption, drawn)


def utilisation(run: RunTables) -> Plot | None:
    """Places in use on the providers' machines, and processor time of the daemons."""
    series = run["series"]
    sells = np.isin(series["node"], run.providers)
    if not sells.any():
        return None
    drawn, (left, right) = figure(2)
    at_s, node = seconds(series["at_ns"]), series["node"]
    pairs = zip(run.by_group(run.groups_of("provider"), node), COLOURS, strict=False)
    for (group, inside), colour in pairs:
        if inside.any():
            busy = series["machine_busy_permille"][inside] / 10
            left.plot(*_over_time(at_s[inside], busy, np.mean), color=colour, label=group)
    for label, of, colour in (("sellers", sells, COLOURS[0]), ("others", ~sells, COLOURS[1])):
        if of.any():
            used = series["cpu_permille"][of] / 10
            right.plot(*_over_time(at_s[of], used, np.mean), color=colour, label=label)
    for axes, what in ((left, "places in use, %"), (right, "daemon's processor, %")):
        axes.set_xlabel("virtual time, s")
        axes.set_ylabel(what)
        axes.set_ylim(bottom=0)
        legend(axes)
    mean = float(series["machine_busy_permille"][sells].mean()) / 10
    peak = float(series["cpu_permille"].max()) / 10
    caption = (
        f"{mean:.1f} % of the places are in use on average; "
        f"the busiest node's daemon took {peak:.0f} % of its processor at its peak."
    )
    return Plot("utilisation", "How busy machines are", caption, drawn)


def failures(run: RunTables) -> Plot | None:
    """Failed jobs by code over time, against the nodes that are down."""
    jobs, series = run["jobs"], run["series"]
    bad = jobs["outcome"] != "done"
    down = ~series["alive"].astype(bool)
    if not bad.any() and not down.any():
        return None
    drawn, axes = figure()
    ended_s = seconds(jobs["at_ns"] + jobs["end_ns"])
    edges = np.linspace(float(ended_s.min()), float(ended_s.max()) + 1e-9, 41)
    bottom = np.zeros(40)
    codes = np.where(jobs["code"] == "", jobs["outcome"], jobs["code"])[bad]
    names, counts = np.unique(codes.astype(str), return_counts=True)
    for name, colour in zip(names[np.argsort(-counts)][:LINES_MAX], COLOURS[1:], strict=False):
        height = np.histogram(ended_s[bad][codes == name], edges)[0]
        width = edges[1] - edges[0]
        axes.bar(edges[:-1], height, width, bottom, align="edge", color=colour, label=name)
        bottom += height
    axes.set_xlabel("virtual time, s")
    axes.set_ylabel("requests that failed")
    axes.set_ylim(0, max(1.0, float(bottom.max())) * 1.35)  # room for the legend
    axes.yaxis.get_major_locator().set_params(integer=True)
    if down.any():
        other = axes.twinx()
        times, gone = _over_time(seconds(series["at_ns"]), down * 100, np.mean)
        other.plot(times, gone, color=BAD, linewidth=1.2, linestyle="--", label="nodes down")
        other.set_ylabel("nodes down, %", color=BAD)
        other.set_ylim(bottom=0)
        other.grid(False)
    legend(axes, loc="upper left")
    caption = f"{int(bad.sum())} of {len(bad)} requests failed"
    if len(names):
        most = int(counts.argmax())
        caption += f", {counts[most]} of them with {names[most]}"
    if down.any():
        caption += f" while {float(down.mean()) * 100:.1f} % of the watched nodes were down"
    return Plot("failures", "What fails", caption + ".", drawn)


def revenue(run: RunTables) -> Plot | None:
    """What a provider of each group earned, adversaries beside the honest."""
    nodes, revenue_ucr = run["nodes"], run.revenue_ucr
    groups = run.groups_of("provider")
    if len(groups) < 2 or not revenue_ucr.sum():
        return None
    drawn, axes = figure()
    each = []
    for group, inside in run.by_group(groups, run.providers):
        each.append((group, float(revenue_ucr[inside].mean()) / UCR_PER_CREDIT))
    spread = [
        revenue_ucr[inside] / UCR_PER_CREDIT for _, inside in run.by_group(groups, run.providers)
    ]
    colours = [BAD if _adversary(nodes, group) else COLOURS[2] for group in groups]
    axes.barh(range(len(each)), [mean for _, mean in each], color=colours, alpha=0.55)
    for row, amounts in enumerate(spread):
        step = np.linspace(-0.28, 0.28, len(amounts)) if len(amounts) > 1 else np.zeros(1)
        axes.plot(amounts, row + step, ".", markersize=3, color=colours[row])
    axes.set_yticks(range(len(each)), [name for name, _ in each])
    axes.set_ylim(len(each) - 0.5, -0.5)
    axes.set_xlabel("credits a provider (bar: mean, dots: each)")
    axes.grid(False, axis="y")
    best = max(each, key=lambda one: one[1])
    total = format_credits(int(revenue_ucr.sum()))
    caption = f"{total} credits in all; a provider of {best[0]} earned most, {best[1]:.3g}."
    if any(colour == BAD for colour in colours):
        caption += " Red: adversaries."
    return Plot("revenue", "What a seller earns", caption, drawn)


def _adversary(nodes: dict[str, Array], group: str) -> bool:
    """Whether a group's nodes do not keep to the rules; older tables do not say."""
    told = nodes.get("adversary")
    return told is not None and bool((told[nodes["group"] == group] != "").any())


def exposure(run: RunTables) -> Plot | None:
    """What is at stake in open channels: deposits, and what is delivered and not paid yet."""
    series = run["series"]
    if not len(series["at_ns"]) or not series["locked_ucr"].any():
        return None
    drawn, (left, right) = figure(2)
    moments, part = np.unique(series["at_ns"], return_inverse=True)
    lines = (
        (left, "locked_ucr", "deposits in channels, credits", COLOURS[0]),
        (right, "unpaid_ucr", "delivered, not paid, ucr", COLOURS[6]),
    )
    for axes, column, label, colour in lines:
        total = np.bincount(part, series[column].astype(float), len(moments))
        size = UCR_PER_CREDIT if axes is left else 1
        step = max(1, len(moments) // 240)
        axes.fill_between(
            seconds(moments)[::step], (total / size)[::step], color=colour, alpha=0.25, linewidth=0
        )
        axes.plot(seconds(moments)[::step], (total / size)[::step], color=colour)
        axes.set_xlabel("virtual time, s")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        plain_numbers(axes.yaxis)
    locked = np.bincount(part, series["locked_ucr"].astype(float), len(moments)).max()
    unpaid = np.bincount(part, series["unpaid_ucr"].astype(float), len(moments)).max()
    caption = (
        f"At most {format_credits(int(locked))} credits were locked, and "
        f"{format_credits(int(unpaid))} delivered without a voucher yet, among the watched nodes."
    )
    return Plot("exposure", "What is at stake in channels", caption, drawn)
