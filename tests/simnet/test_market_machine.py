"""Any schedule of asks, faults and changes of mind keeps the money straight, and then heals.

Source: router/README.md, "Money": I1 to I6, conservation, liveness, under drop, crash with loss of
what was not synced, restart, cut streams, cancels, closes and payers that stop paying.
"""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from protocol import limits
from protocol.channel import Role
from protocol.messages import Voucher
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.choosing import Choice
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.support import (
    ADVANCE_UCR,
    PRICE_MAX_UCR,
    STAYS,
    engine,
    last_end,
    make_ask,
    offer,
    succeeded,
)
from tests.simnet.watch import Watch

PROVIDERS = st.integers(0, 1)
REQUESTERS = st.integers(2, 3)
ANYONE = st.integers(0, 3)
TOKENS = st.sampled_from([1, 10, 33, 70])
HELD = st.sampled_from([0, 0, 600, 10**9])
# Stay with the provider, or go on elsewhere; two at once, or two when the first is late.
CHOICES = st.sampled_from(
    [
        STAYS,
        Choice(),
        Choice(race=2),
        Choice(hedge_factor_milli=1_000, hedge_floor_ns=20 * NS_PER_MS),
    ]
)
# A deposit of 0 is raised to the worst case of the job: used to its last unit.
DEPOSITS = st.sampled_from([0, 1_000_000])


class Market(RuleBasedStateMachine):
    """Two providers (0, 1) and two requesters (2, 3), in any kind of trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.asks = 0
        self.mean: set[int] = set()  # requesters that have stopped paying

    @initialize(
        seed=st.integers(0, 1_000),
        input_tokens=st.sampled_from([12, 300]),
        advance=st.sampled_from([0, 500, 3_000, ADVANCE_UCR]),
    )
    def build(self, seed: int, input_tokens: int, advance: int) -> None:
        """A small world with a slow disk, so that crashes find something un-synced."""
        self.world = World(WorldSettings(seed=seed, fsync_ns=8 * NS_PER_MS))
        for number, price in ((1, 60_000_000), (2, 50_000_000)):
            model = offer(number, output_price=price, places=2)
            sold = replace(engine(model, input_tokens=input_tokens), counts=True)
            self.world.add(sold)
        self.world.add()
        self.world.add()
        self.watch = Watch(self.world, advance)
        self.watch.silence(self._unpaid)

    def _unpaid(self, source: Peer, message: Any) -> bool:
        return source.index in self.mean and isinstance(message, Voucher)

    # --- the market ------------------------------------------------------------------------

    @rule(who=REQUESTERS, tokens=TOKENS, deposit=DEPOSITS, held=HELD, choice=CHOICES)
    def ask(self, who: int, tokens: int, deposit: int, held: int, choice: Choice) -> None:
        """A new request."""
        self.asks += 1
        ask = make_ask(
            self.asks,
            tokens,
            advance_max_ucr=self.watch.advance_ucr,
            deposit_ucr=deposit,
            holdback_ucr=held,
            audit_ns=20 * NS_PER_S if held else 0,
            timeout_ns=30 * NS_PER_S,
            bid_window_ns=120 * NS_PER_MS,
            choice=choice,
        )
        self.world.give(self.world.peers[who], ask)

    @rule(
        who=REQUESTERS,
        tokens=TOKENS,
        deposit=DEPOSITS,
        held=HELD,
        choice=CHOICES,
        ms=st.integers(100, 1_000),
    )
    def ask_and_wait(
        self, who: int, tokens: int, deposit: int, held: int, choice: Choice, ms: int
    ) -> None:
        """A new request, up to somewhere between its bids and its receipt."""
        self.ask(who=who, tokens=tokens, deposit=deposit, held=held, choice=choice)
        self.world.run(ms * NS_PER_MS)

    @rule(ms=st.integers(1, 60))
    def run_a_little(self, ms: int) -> None:
        """A few frames."""
        self.world.run(ms * NS_PER_MS)

    @rule(ms=st.integers(100, 3_000))
    def run_longer(self, ms: int) -> None:
        """A good part of a job."""
        self.world.run(ms * NS_PER_MS)

    @rule(who=REQUESTERS, back=st.integers(0, 2))
    def cancel(self, who: int, back: int) -> None:
        """The asker gives up on one of the last requests."""
        self.world.give(self.world.peers[who], act.CancelAsk(self.asks - back))

    @rule(who=REQUESTERS)
    def close(self, who: int) -> None:
        """All channels of a requester should close."""
        self.world.give(self.world.peers[who], act.CloseChannels(()))

    @rule(who=REQUESTERS, passed=st.booleans())
    def audit(self, who: int, passed: bool) -> None:
        """A requester's auditor has a verdict on a lane that waits for one."""
        peer = self.world.peers[who]
        for channel in list(peer.node.context.ledger.channels.values()):
            for lane in list(channel.lanes):
                verdict: act.Input = act.Dispute(channel.cid, lane, "receipt.mismatch")
                if passed:
                    verdict = act.AuditPassed(channel.cid, lane)
                self.world.give(peer, verdict)

    @rule(who=REQUESTERS, more=st.sampled_from([1, 5_000, 20_000_000]))
    def top_up(self, who: int, more: int) -> None:
        """A person raises the deposit of a requester's first open channel."""
        peer = self.world.peers[who]
        for channel in peer.node.context.ledger.channels.values():
            if channel.role is Role.PAYER and channel.is_open:
                self.world.give(peer, act.TopUpChannel(channel.cid, channel.deposit_ucr + more))
                return

    @rule(who=ANYONE, back=st.integers(0, 2))
    def close_alone(self, who: int, back: int) -> None:
        """A person closes one of a node's channels, whatever the other end says."""
        peer = self.world.peers[who]
        cids = list(peer.node.context.ledger.channels)
        if back < len(cids):
            self.world.give(peer, act.ForceClose((cids[-1 - back],)))

    @rule(days=st.sampled_from([1, 3, 31]))
    def much_later(self, days: int) -> None:
        """Challenge periods and lifetimes pass."""
        self.world.run(days * 24 * 3_600 * NS_PER_S)

    # --- trouble ---------------------------------------------------------------------------

    @rule(provider=PROVIDERS, requester=REQUESTERS)
    def cut(self, provider: int, requester: int) -> None:
        """A stream breaks with what is in flight."""
        self.world.cut(self.world.peers[provider], self.world.peers[requester])

    @rule(who=ANYONE, lost=st.integers(0, 5), again_ms=st.integers(0, 200))
    def crash_and_restart(self, who: int, lost: int, again_ms: int) -> None:
        """A node dies, loses un-synced records, and comes back."""
        peer = self.world.peers[who]
        if peer.alive:
            self.world.crash(peer, lost)
            self.world.run(again_ms * NS_PER_MS)
            self.world.restart(peer)

    @rule(who=ANYONE, lost=st.integers(0, 5))
    def crash(self, who: int, lost: int) -> None:
        """A node dies and stays away."""
        if self.world.peers[who].alive:
            self.world.crash(self.world.peers[who], lost)

    @rule(who=ANYONE, back=st.integers(1, 12))
    def put_back(self, who: int, back: int) -> None:
        """A node comes back with a log from before its last records."""
        peer = self.world.peers[who]
        if peer.alive:
            self.world.crash(peer)
        del peer.log[max(0, len(peer.log) - back) :]
        self.world.restart(peer)
        self.watch.put_back(peer)

    @rule()
    def restart(self) -> None:
        """The dead come back."""
        for peer in self.world.peers:
            if not peer.alive:
                self.world.restart(peer)

    @rule(who=PROVIDERS)
    def engine_breaks(self, who: int) -> None:
        """Every running job of a provider fails."""
        peer = self.world.peers[who]
        for job_id in list(peer.jobs):
            del peer.jobs[job_id]
            self.world.give(peer, act.JobBroke(job_id, "engine.crashed"))

    @rule(who=PROVIDERS, serves=st.booleans())
    def offers_change(self, who: int, serves: bool) -> None:
        """A model is unloaded or loaded: awards on older bids are refused."""
        peer = self.world.peers[who]
        assert peer.engine is not None
        offers = (peer.engine.offer,) if serves else ()
        self.world.give(peer, act.OffersChanged(offers))

    @rule(who=REQUESTERS)
    def stop_paying(self, who: int) -> None:
        """From here on this requester's vouchers are swallowed."""
        self.mean.add(who)

    def pay_again(self, who: int) -> None:
        """An honest payer again, on new streams."""
        self.mean.discard(who)
        for provider in self.world.peers[:2]:
            self.world.cut(provider, self.world.peers[who])

    @rule()
    def start_paying(self) -> None:
        """All pay again."""
        for who in sorted(self.mean):
            self.pay_again(who)

    # --- always, and in the end ------------------------------------------------------------

    @invariant()
    def money_is_straight(self) -> None:
        """I1 to I6, replay and agreement hold between any two events."""
        self.watch.check()

    def answers_are_whole(self) -> None:
        """Whoever made the parts: each asker has read from 1 on, nothing twice, within the cap."""
        for peer in self.world.peers[2:]:
            texts: dict[int, str] = {}
            for number, event in peer.told:
                if isinstance(event, events.Text):
                    texts[number] = texts.get(number, "") + event.text
                    assert event.due_ucr <= PRICE_MAX_UCR
                elif isinstance(event, events.Done):
                    assert event.cost_ucr <= PRICE_MAX_UCR
            for text in texts.values():
                words = text.split()
                assert words == [str(number) for number in range(1, len(words) + 1)]

    def teardown(self) -> None:
        """Faults stop: what hangs ends, a new ask is served, every channel settles."""
        if not hasattr(self, "watch"):
            return
        world = self.world
        for peer in world.peers:
            if not peer.alive:
                world.restart(peer)
        for who in sorted(self.mean):
            self.pay_again(who)
        for peer in world.peers[:2]:
            assert peer.engine is not None
            world.give(peer, act.OffersChanged((peer.engine.offer,)))
        world.run(60 * NS_PER_S)
        for requester in world.peers[2:]:
            assert not requester.node.requester.open_jobs
        for provider in world.peers[:2]:
            assert not provider.node.provider.serving.running
        self.watch.advance_ucr = ADVANCE_UCR  # so that a prompt over W is paid for
        for requester in world.peers[2:]:
            self.asks += 1
            world.give(requester, make_ask(self.asks, 40))
            world.run(20 * NS_PER_S)
            assert succeeded(requester, self.asks), last_end(requester, self.asks)
        for requester in world.peers[2:]:
            world.give(requester, act.CloseChannels(()))
        world.run(20 * NS_PER_S)
        # What was closed alone; a payee that never heard of it claims when its lifetime ends.
        world.run(limits.CHANNEL_LIFETIME_NS + 2 * limits.CHALLENGE_NS)
        self.watch.check_settled()
        self.answers_are_whole()
        assert self.watch.chunks_seen
        assert self.watch.vouchers_seen


Market.TestCase.settings = settings(stateful_step_count=20)
TestMarket = Market.TestCase
