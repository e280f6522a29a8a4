"""Who bids, between real daemons in one process: libp2p on loopback, logs on disk; answers are
scripted.

Source: router/README.md, "Self-selection".
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from engine.scripted import Script, ScriptedEngine
from peer.daemon import Daemon, DaemonSettings, open_daemon
from peer.insight import explanation_json
from peer.libp2p_adapter.network import NetworkSettings
from protocol import crypto, limits
from protocol.crypto import Signer
from protocol.fields import Strategy
from protocol.units import NS_PER_MS
from router import actions as act
from router import events
from router.anchoring import AnchorSettings
from router.bidding import GOOD_BIDS_MIN
from router.choosing import RequesterSettings
from tests.e2e.support import PATIENCE_S
from tests.router.support import MODEL, make_ask

CHEAP = limits.CLEARING_RANK  # as many as what is told of an auction is matched by
DEAR = 3
TELLERS = 4  # so many strangers are believed
UCR = 1_000_000


class Street:
    """Daemons that all know the first one; the sellers in the order in which they opened."""

    def __init__(self, home: Path, nursery: trio.Nursery) -> None:
        self._home, self._nursery = home, nursery
        self.daemons: list[Daemon] = []
        self.sellers: list[Daemon] = []

    async def open(self, price: int = 0) -> Daemon:
        """A seller at so many credits per million tokens, which bids by lot where it can't win;
        without a price a requester."""
        number = len(self.daemons)
        known = self.daemons[0].network.addresses[:1] if number else ()
        settings = DaemonSettings(
            self._home / str(number),
            NetworkSettings("e2e", bootstrap=tuple(known)),
            output_price_ucr=price * UCR,
            anchor=AnchorSettings(10**9),
            standing_offers=False,
            bids_wanted=1,
            requester=RequesterSettings(tell_clearing=True),
        )
        engine = ScriptedEngine({MODEL: Script()}) if price else None
        if engine is not None:
            await self._nursery.start(engine.run)
        signer = Signer(crypto.digest(b"street", bytes([number])))
        daemon: Daemon = await self._nursery.start(serve, settings, signer, engine)
        self.daemons.append(daemon)
        if price:
            self.sellers.append(daemon)
        await until(lambda: self.daemons[0].network.topic_peers() >= number)
        return daemon

    def looked(self) -> list[tuple[int, int]]:
        """How many bids each seller sent and withheld, as its status says."""
        cores = [daemon.node.provider for daemon in self.sellers]
        return [(core.placing.sent, core.self_selection.withheld) for core in cores]

    def drain(self, sellers: list[Daemon]) -> None:
        """They bid no more."""
        for daemon in sellers:
            daemon.driver.feed(act.Drain())


async def serve(
    settings: DaemonSettings,
    signer: Signer,
    engine: ScriptedEngine | None,
    *,
    task_status: trio.TaskStatus[Daemon],
) -> None:
    """A daemon until it is cancelled."""
    async with open_daemon(settings, signer, engine) as daemon:
        task_status.started(daemon)
        await trio.sleep_forever()


async def until(condition: Callable[[], object]) -> None:
    """Ask again and again until it is so."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what daemons know is looked at
            await trio.sleep(0.02)


async def buy(requester: Daemon, early_close_bids: int, window_ms: int) -> dict[str, Any]:
    """A request by price alone, to its receipt; its explanation."""
    ask = make_ask(
        requester.new_ask_id(),
        bid_window_ns=window_ms * NS_PER_MS,
        strategy=Strategy(1_000, 0),
        early_close_bids=early_close_bids,
    )
    with trio.fail_after(PATIENCE_S):
        async with requester.ask(ask) as told:
            heard = [event async for event in told]
    assert isinstance(heard[-1], events.Done), heard[-1]
    (published,) = (event for event in heard if isinstance(event, events.Published))
    found = requester.node.requester.explanations.find(published.request_id)
    assert found is not None
    return explanation_json(found) | {"winner": heard[-1].receipt.payee}


def key_of(daemon: Daemon) -> bytes:
    return daemon.node.context.public_key


async def test_who_can_not_win_is_silent_until_asked_and_newcomers_get_in(tmp_path: Path) -> None:
    """All bid until four requesters told; then the dear ones don't, but when too few others do."""
    async with trio.open_nursery() as nursery:
        street = Street(tmp_path, nursery)
        tellers = [await street.open() for _ in range(TELLERS)]
        for number in range(CHEAP + DEAR):
            await street.open(price=20 + number)
        everybody = CHEAP + DEAR

        # Nobody knows anything: all bid on all.
        async def tell(teller: Daemon) -> None:
            found = await buy(teller, early_close_bids=everybody, window_ms=10_000)
            assert len(found["bids"]) > CHEAP, "enough to tell of"

        async with trio.open_nursery() as asking:
            for teller in tellers:
                asking.start_soon(tell, teller)
        await until(lambda: street.looked() == [(TELLERS, 0)] * everybody)
        books = [daemon.node.context.clearings for daemon in street.daemons]
        await until(lambda: all(voices(book) == TELLERS for book in books))

        # What they told: eight are as good as the bar. The others draw lots.
        requester = tellers[0]
        for _ in range(2):
            found = await buy(requester, early_close_bids=everybody, window_ms=4_000)
            assert not found["asked_again"]
            assert len(found["bids"]) >= GOOD_BIDS_MIN
        await until(lambda: sum(map(sum, street.looked())) == everybody * (TELLERS + 2))
        assert street.looked()[:CHEAP] == [(TELLERS + 2, 0)] * CHEAP
        silent = sum(withheld for _, withheld in street.looked()[CHEAP:])
        assert 0 < silent <= 2 * DEAR, "they bid by lot, one time in eleven"

        # Who comes with a better price is heard at once.
        newcomer = await street.open(price=10)
        found = await buy(requester, early_close_bids=0, window_ms=2_000)
        assert found["winner"] == key_of(newcomer)

        # The good ones are gone: at half of the window those that were silent are asked for.
        street.drain([*street.sellers[:CHEAP], newcomer])
        found = await buy(requester, early_close_bids=DEAR, window_ms=4_000)
        assert found["asked_again"]
        assert len(found["bids"]) == DEAR
        assert found["winner"] == key_of(street.sellers[CHEAP])
        nursery.cancel_scope.cancel()


def voices(book: Any) -> int:
    """How many told a node of the model."""
    return len(book._known.get(MODEL, ())) + len(book._strangers.get(MODEL, ()))
