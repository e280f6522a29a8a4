"""What is told of auctions that withheld bids had thinned: the bar stays where enough match it.

Source: router/README.md, "Self-selection".
"""

import pytest

from protocol import limits
from protocol.units import NS_PER_MS, NS_PER_S
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import MODEL, make_ask, succeeded
from tests.router.test_self_selection import crowd, noted

SELLERS, REQUESTERS = 48, 30
LEARNING = 4  # requests until enough was told


def believed(seller: Peer) -> int:
    """How many sellers are as good as what the median of the requesters told."""
    book = seller.node.context.clearings._strangers[MODEL].values()
    prices = sorted(signed.message.output_price_ucr for signed in book)
    return 1 + (prices[(len(prices) - 1) // 2] - 40_000_000) // 1_000_000


def sent(world: World) -> int:
    return sum(peer.node.provider.placing.sent for peer in world.peers[:SELLERS])


@pytest.mark.parametrize("seed", [2, 4])
def test_thinned_auctions_do_not_tell_ever_stricter_bars(seed: int) -> None:
    """Regression: those that closed early, with the few best alone, told what fewer could match;
    then too few bid, everybody was asked again, at each request, and told a stricter one."""
    world = crowd(SELLERS, REQUESTERS, latency_ns_max=400 * NS_PER_MS, seed=seed)
    for number, requester in enumerate(world.peers[SELLERS:]):
        if number == LEARNING:
            learnt = sent(world)
        world.give(requester, make_ask(tokens=4, bid_window_ns=NS_PER_S, early_close_bids=8))
        world.run(3 * NS_PER_S)
        assert succeeded(requester)
    asks = REQUESTERS - LEARNING
    again = sum(noted(peer, "request.asked_again") for peer in world.peers[-asks:])
    assert again <= asks // 5, "26 or 22 of 26 were, with the fault"
    assert sent(world) - learnt < asks * SELLERS * 5 // 8
    assert believed(world.peers[0]) >= limits.CLEARING_RANK, "4 or 2, with the fault"
