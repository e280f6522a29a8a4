"""What must hold when a run is over, whatever happened in it."""

from router.ledger import Ledger
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
    nets = [peer.node.context.ledger.balance().net_ucr for peer in simulation.peers]
    if sum(nets):
        found.append(f"{sum(nets)} ucr appeared or vanished")
    for peer in simulation.peers:
        if peer.log and peer.alive and not _replays(simulation, peer.index):
            found.append(f"node {peer.index}: its log does not replay to its state")
    return found


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
