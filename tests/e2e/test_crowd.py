"""Many requests at once: all are answered, and every node's books agree with every other's."""

from concurrent.futures import ThreadPoolExecutor

from peer.cli.audit import audit
from tests.e2e.judging import answer_of, of, shared_channels
from tests.e2e.support import NETWORK, PROMPT, Market, provider_flags, until

ASKS = 8


def test_eight_asks_of_three_providers(market: Market) -> None:
    """8 asks at once find 3 places at each of 3 providers: all end, money is conserved."""
    requester = market.requester
    providers = market.sell(
        *(
            (*provider_flags(output_price=price, steps_per_s_max=40), "--places", "3")
            for price in ("40", "50", "60")
        )
    )
    only = [provider.peer_id for provider in providers]
    prompts = [f"{PROMPT} {number}" for number in range(ASKS)]

    def ask(prompt: str) -> str:
        changes = {"messages": [["user", prompt]], "max_tokens": 24, "providers_only": only}
        events = requester.ask(**changes)
        assert answer_of(events)
        return str(of(events, "done")[0]["receipt"]["receipt_id"])

    with ThreadPoolExecutor(ASKS) as pool:
        receipts = list(pool.map(ask, prompts))
    assert len(set(receipts)) == ASKS

    until(lambda: not any(one.status()["running_jobs"] for one in providers), "all jobs end")
    requester.call("close")
    listed = requester.channels()
    assert listed
    assert all(channel["state"] == "closed" for channel in listed)
    for provider in providers:
        for ends in shared_channels(requester, provider):
            assert ends.payer.settled_ucr == ends.payee.settled_ucr
    directories = [requester.directory, *(provider.directory for provider in providers)]
    findings = audit(directories, NETWORK)
    assert findings == {"logs_ok": True, "receipts_ok": True, "conserved": True}
    assert requester.status()["balance"]["locked_ucr"] == 0
