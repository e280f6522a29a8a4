"""What must hold when a run is over, whatever happened in it."""

from protocol.channel import Channel, Role
from router.ledger import Ledger
from simnet.checks.each_step import appeared
from simnet.simulation import Simulation


def faults(simulation: Simulation, left_open: int) -> list[str]:
    """One line for each rule that does not hold; empty when all is well."""
    found = []
    if left_open:
        found.append(f"{left_open} requests did not end")
    totals = simulation.market.totals
    ended = totals.done + totals.failed + left_open
    if ended != totals.requests:
        found.append(f"{totals.requests} requests, but {ended} ended")
    found += _money(simulation)
    for peer in simulation.peers:
        honest = not simulation.is_adversary(peer.index)
        if honest and peer.log and peer.alive and not _replays(simulation, peer.index):
            found.append(f"node {peer.index}: its log does not replay to its state")
    return found


def _money(simulation: Simulation) -> list[str]:
    """Nothing appears or vanishes between honest nodes, and all their channels have closed."""
    found: list[str] = []
    payers, payees = ends(simulation)
    unsettled = 0
    for cid, (payer, paying) in payers.items():
        payee, earning = payees.get(cid, (simulation.number_of(paying.payee), None))
        if simulation.is_adversary(payer) or simulation.is_adversary(payee):
            continue
        if earning is None:
            if paying.due_ucr and paying.settled_ucr != 0:
                found.append(f"node {payer} owes {paying.due_ucr} ucr to {payee}, who knows not")
        elif paying.settled_ucr is None or earning.settled_ucr is None:
            unsettled += 1
            if paying.settled_ucr is None and paying.due_ucr > earning.due_ucr:
                found.append(f"node {payer} got more from {payee} than was sent")
        elif detail := appeared(paying, earning):
            found.append(f"nodes {payer} and {payee}: {detail}")
    if unsettled:
        found.append(f"{unsettled} channels did not close")
    return found


def ends(
    simulation: Simulation,
) -> tuple[dict[bytes, tuple[int, Channel]], dict[bytes, tuple[int, Channel]]]:
    """The channels of all nodes, by id, with who has them: as payer, and as payee."""
    payers: dict[bytes, tuple[int, Channel]] = {}
    payees: dict[bytes, tuple[int, Channel]] = {}
    for peer in simulation.peers:
        for cid, channel in peer.node.context.ledger.channels.items():
            found = payers if channel.role is Role.PAYER else payees
            found[cid] = peer.index, channel
    return payers, payees


def _replays(simulation: Simulation, index: int) -> bool:
    """Whether the log, folded again, has the channels, totals and sums of the live ledger."""
    peer = simulation.peers[index]
    live = peer.node.context.ledger
    again = Ledger(simulation.network, peer.signer.public_key)
    for number, payload in peer.log:
        again.replay(number, payload)
    if live.receipts != again.receipts or live.channels.keys() != again.channels.keys():
        return False
    return all(
        (channel.total_ucr, channel.settled_ucr, channel.deposit_ucr, channel.lane_last)
        == (other.total_ucr, other.settled_ucr, other.deposit_ucr, other.lane_last)
        for channel, other in zip(live.channels.values(), again.channels.values(), strict=True)
    )
