"""The people of a simulation: who asks, what they were told, what they spent.

Follows each request from its ask to its end and turns that into rows. Must not know how anything
gets from one node to another.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from router import events
from router.actions import Ask, StartJob
from simnet.market.hindsight import regret_permille
from simnet.market.inference import tokens_of
from simnet.market.pricing import Seller
from simnet.market.workload import Arrival, Asking
from simnet.peer import Peer
from simnet.recording.recorder import Recorder

NONE: Final = -1
CONTROL_ASK: Final = -1  # the node's own number for events that belong to no request


@dataclass(slots=True)
class OpenRequest:
    """A request that has not ended. Times in ns since its publication, NONE for not yet."""

    ask: Ask
    node: int
    group: str
    at_ns: int
    bids: int = 0
    attempts: int = 0
    provider: int = NONE
    award_ns: int = NONE
    first_text_ns: int = NONE
    makers: list[int] = field(default_factory=list)  # whose machines worked on it


@dataclass(slots=True)
class Totals:
    """Counts over a run. Of the `bids_sent`, the `bids` came in time."""

    requests: int = 0
    skipped: int = 0
    bids: int = 0
    bids_sent: int = 0
    awarded: int = 0
    done: int = 0
    failed: int = 0
    paid_ucr: int = 0
    settled_ucr: int = 0
    refunded_ucr: int = 0


class Market:
    """All requests of a run. `number_of` names a node by its key."""

    def __init__(
        self,
        recorder: Recorder,
        number_of: Callable[[bytes], int],
        epoch_ns: int,
        sellers: dict[int, Seller],
    ) -> None:
        self._recorder = recorder
        self._sellers = sellers
        self._number_of = number_of
        self._epoch_ns = epoch_ns
        self.open: dict[int, OpenRequest] = {}
        self.answers: dict[int, int] = {}  # ask -> tokens that its answer will have
        self.totals = Totals()
        self.award_ns: list[int] = []
        self.regret_permille: list[int] = []  # of first awards
        self.first_text_ns: list[int] = []
        self.failures: dict[str, int] = {}
        self._spent_ucr: dict[int, int] = {}
        # Group -> who is told of an answer's receipt, and whether a machine made it.
        self.readers: dict[str, Callable[[Peer, bytes, bool], None]] = {}
        self.sold: dict[int, int] = {}  # provider -> tokens that receipts say
        self.asked: dict[int, tuple[int, int]] = {}  # node -> requests that ended, and were done

    # --- asking ----------------------------------------------------------------------------

    def ask(self, peer: Peer, asking: Asking, arrival: Arrival, now_ns: int) -> Ask | None:
        """The next request of a node; None when its budget can't pay for it."""
        group = asking.group
        number = self.totals.requests + self.totals.skipped + 1
        ask, output_tokens = asking.make(number, arrival)
        at_ns = now_ns - self._epoch_ns
        spent_ucr = self._spent_ucr.get(peer.index, 0)
        skipped = bool(group.budget_ucr) and spent_ucr + ask.price_max_ucr > group.budget_ucr
        self._recorder.add(
            "requests",
            (
                number,
                peer.index,
                group.name,
                ask.model,
                at_ns,
                tokens_of(ask.prompt.messages[0].content),
                output_tokens,
                ask.parameters.output_tokens_max,
                ask.price_max_ucr,
                skipped,
            ),
        )
        if skipped:
            self.totals.skipped += 1
            return None
        self.totals.requests += 1
        # Held against the budget until it is known what it costs.
        self._spent_ucr[peer.index] = spent_ucr + ask.price_max_ucr
        self.open[number] = OpenRequest(ask, peer.index, group.name, at_ns)
        self.answers[number] = output_tokens
        return ask

    def tokens_left(self, job: StartJob, maker: int) -> int:
        """What a job makes: its answer, without what another provider has begun of it."""
        if request := self.open.get(job.parameters.seed):
            request.makers.append(maker)
        whole = self.answers.get(job.parameters.seed) or job.parameters.output_tokens_max
        return max(1, whole - tokens_of(job.prompt.begun))

    # --- what askers are told --------------------------------------------------------------

    def told(self, peer: Peer, ask_id: int, event: Any, now_ns: int) -> None:
        """An event for an asker."""
        if isinstance(event, events.ChannelSettled):
            self._settled(peer, event, now_ns)
            return
        request = self.open.get(ask_id)
        if request is None or request.node != peer.index:
            return
        match event:
            case events.Text():
                if request.first_text_ns == NONE:
                    request.first_text_ns = event.at_ns
                    self.first_text_ns.append(event.at_ns)
            case events.BidSeen():
                self._bid(ask_id, request, event)
            case events.Awarded():
                self._awarded(ask_id, request, event)
            case events.Done():
                self._read(peer, request, event)
                tokens = event.input_tokens, event.output_tokens
                self._end(ask_id, request, "done", "", event.at_ns, tokens, event.cost_ucr)
            case events.Failed():
                self._end(
                    ask_id, request, "failed", event.code, event.at_ns, (0, 0), event.paid_ucr
                )

    def _read(self, peer: Peer, request: OpenRequest, done: events.Done) -> None:
        reader = self.readers.get(request.group)
        if reader is not None:
            reader(peer, done.receipt_id, self._number_of(done.receipt.payee) in request.makers)

    def _bid(self, ask_id: int, request: OpenRequest, bid: events.BidSeen) -> None:
        request.bids += 1
        self.totals.bids += 1
        self._recorder.add(
            "bids",
            (
                ask_id,
                self._number_of(bid.provider),
                bid.at_ns,
                bid.input_price_ucr,
                bid.output_price_ucr,
                bid.ttft_ns,
                bid.tokens_per_s_milli,
                bid.cost_max_ucr,
                bid.score,
                bid.code,
            ),
        )

    def _awarded(self, ask_id: int, request: OpenRequest, award: events.Awarded) -> None:
        request.provider = self._number_of(award.provider)
        regret = regret_permille(request.ask, request.provider, self._sellers)
        if request.attempts == 0:
            self.totals.awarded += 1
            self.award_ns.append(award.at_ns)
            self.regret_permille.append(regret)
        request.attempts += 1
        request.award_ns = award.at_ns
        self._recorder.add(
            "awards",
            (
                ask_id,
                request.provider,
                award.attempt,
                award.at_ns,
                award.opened_channel,
                award.deposit_ucr,
                regret,
            ),
        )

    def _end(
        self,
        ask_id: int,
        request: OpenRequest,
        outcome: str,
        code: str,
        end_ns: int,
        tokens: tuple[int, int],
        paid_ucr: int,
    ) -> None:
        totals = self.totals
        if outcome == "done":
            totals.done += 1
            self.sold[request.provider] = self.sold.get(request.provider, 0) + tokens[1]
        elif outcome == "failed":
            totals.failed += 1
            self.failures[code] = self.failures.get(code, 0) + 1
        asked, done = self.asked.get(request.node, (0, 0))
        self.asked[request.node] = asked + 1, done + (outcome == "done")
        totals.paid_ucr += paid_ucr
        self._spent_ucr[request.node] += paid_ucr - request.ask.price_max_ucr
        del self.open[ask_id]
        self._recorder.add(
            "jobs",
            (
                ask_id,
                request.node,
                request.group,
                request.ask.model,
                request.provider,
                outcome,
                code,
                request.at_ns,
                request.bids,
                request.attempts,
                request.award_ns,
                request.first_text_ns,
                end_ns,
                *tokens,
                paid_ucr,
            ),
        )

    def died(self, node: int, now_ns: int) -> None:
        """A node died: who asked there gets no answer. What was paid so far is not in the row."""
        for ask_id, request in list(self.open.items()):
            if request.node == node:
                end_ns = now_ns - self._epoch_ns - request.at_ns
                self._end(ask_id, request, "failed", "request.cancelled", end_ns, (0, 0), 0)

    def give_up(self, now_ns: int) -> int:
        """The run ends: rows for what is still open; how many there are."""
        left = list(self.open.items())
        for ask_id, request in left:
            end_ns = now_ns - self._epoch_ns - request.at_ns
            self._end(ask_id, request, "open", "", end_ns, (0, 0), 0)
        return len(left)

    def _settled(self, peer: Peer, event: events.ChannelSettled, now_ns: int) -> None:
        channel = peer.node.context.ledger.channels[event.cid]
        self.totals.settled_ucr += event.settled_ucr
        self.totals.refunded_ucr += event.refund_ucr
        self._recorder.add(
            "settlements",
            (
                now_ns - self._epoch_ns,
                peer.index,
                self._number_of(channel.payee),
                event.settled_ucr,
                event.refund_ucr,
            ),
        )
