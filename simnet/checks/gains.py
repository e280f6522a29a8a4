"""What each group got out of a run: money against what was delivered, tokens sold against made.

Seen from both ends' ledgers, so that no adversary's own word counts alone.
"""

from typing import Any

from simnet.checks.at_end import ends
from simnet.simulation import Simulation


def gains(simulation: Simulation) -> dict[str, dict[str, Any]]:
    """A row a group. Amounts in ucr.

    `paid` is what payees hold vouchers for, or settled; `received` what payers got text for.
    `gain_ucr` is what a group has that it did not pay for, or did not deliver: an honest one's
    is what it lost, or was lent, and 0 where everybody is honest and all is settled.
    """
    roles, market = simulation.roles, simulation.market
    rows: dict[str, dict[str, Any]] = {}
    groups: dict[int, str] = {}
    for name, members in roles.members.items():
        kind = simulation.intruders.kinds.get(members[0]) if members else None
        rows[name] = {
            "adversary": "" if kind is None else kind.__struct_config__.tag,
            "nodes": len(members),
            "requests": 0,
            "done": 0,
            "received_ucr": 0,
            "paid_ucr": 0,
            "delivered_ucr": 0,
            "earned_ucr": 0,
            "tokens_sold": sum(market.sold.get(node, 0) for node in members),
            "tokens_made": 0,
            "gain_ucr": 0,
        }
        groups.update(dict.fromkeys(members, name))
        for node in members:
            asked, done = market.asked.get(node, (0, 0))
            rows[name]["requests"] += asked
            rows[name]["done"] += done
            machine = simulation.machines.get(node)
            rows[name]["tokens_made"] += 0 if machine is None else machine.tokens_made
    payers, payees = ends(simulation)
    for cid, (payee, earning) in payees.items():
        payer, paying = payers.get(cid, (simulation.number_of(earning.payer), None))
        earned = earning.total_ucr if earning.settled_ucr is None else earning.settled_ucr
        received = 0 if paying is None else paying.due_ucr
        for node, bought, part in ((payer, received, "paid"), (payee, received, "earned")):
            if node not in groups:
                continue
            row, sign = rows[groups[node]], 1 if part == "paid" else -1
            row["received_ucr" if part == "paid" else "delivered_ucr"] += bought
            row[f"{part}_ucr"] += earned
            row["gain_ucr"] += sign * (bought - earned)
    return rows
