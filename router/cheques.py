"""Answers for cheques: checked before any work, served in the queue of all jobs, charged.

Sans-IO. A cheque's nonce is used up by a durable record before any of its answer leaves, and its
price is one before the end does. Rule: router/README.md, "Cheques".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from protocol import signing
from protocol.cheque import check_cheque
from protocol.errors import RemoteError
from protocol.fields import Cheque, GenerationParameters, Prompt
from protocol.messages import Receipt
from protocol.records import ChequeCharged, ChequesPaid, ChequeTaken
from protocol.units import format_credits
from router import actions as act
from router import events
from router.actions import ModelOffer, ServeCheque
from router.auction import NS_MILLI_TOKENS
from router.cheque_book import ChequeAccount
from router.cheque_job import ChequeJob, cost_max_ucr
from router.context import Context
from router.quoting import check_embeds
from router.receipts import sign
from router.rooms import Rooms
from router.timers import TimerKey


@dataclass(frozen=True, slots=True)
class ChequeTerms:
    """Whose cheques are taken, and what their users may owe, in ucr.

    All of them `total_ucr` (0: no cheque is taken); those of `users_ucr` so much each, any other
    key `newcomer_ucr`, and such keys together `newcomers_ucr`.
    """

    total_ucr: int = 0
    newcomer_ucr: int = 0
    newcomers_ucr: int = 0
    users_ucr: Mapping[bytes, int] = field(default_factory=dict)


class Seller(Protocol):
    """What is sold, and the places for it; the `Provider`."""

    offers: dict[str, ModelOffer]
    rooms: Rooms

    def find_offer(self, model: str) -> ModelOffer:
        """What is sold of a model now. RemoteError, no offence."""
        ...


class Cheques:
    """The cheques that this node takes, and the answers that it makes for them."""

    TIMER: Final = "cheque"

    def __init__(self, context: Context, terms: ChequeTerms, seller: Seller) -> None:
        self._context = context
        self.terms = terms
        self._seller = seller
        self._jobs: dict[bytes, ChequeJob] = {}

    @property
    def network(self) -> str:
        """The network that they are signed for."""
        return self._context.network

    @property
    def node(self) -> bytes:
        """Who has to be named on them."""
        return self._context.public_key

    def offers(self) -> tuple[ModelOffer, ...]:
        """What they can pay for."""
        return tuple(self._seller.offers.values())

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    def running_of(self, model: str, payer: bytes | None = None) -> int:
        """Jobs of one model that have not ended: all, or those of one user."""
        jobs = (job for job in self._jobs.values() if payer in (None, job.asked.cheque.user))
        return sum(job.offer.name == model for job in jobs)

    # --- checks ----------------------------------------------------------------------------

    def check(self, cheque: Cheque, now_ns: int) -> None:
        """Whether a cheque is good, before anything is known of what it is for.

        RemoteError, no offence: `cheque.not_taken`, those of `check_cheque`,
        `cheque.unknown_user`, `cheque.replayed`.
        """
        if not self.terms.total_ucr:
            raise RemoteError("cheque.not_taken", penalize=False)
        context = self._context
        check_cheque(context.network, context.public_key, cheque, now_ns, context.verify)
        if not self.limit_ucr(cheque.user):
            raise RemoteError("cheque.unknown_user", penalize=False)
        book = context.ledger.cheques
        if book.account(cheque.user).used(cheque.nonce):
            raise RemoteError("cheque.replayed", penalize=False)

    def quote(self, model: str, prompt: Prompt, parameters: GenerationParameters) -> int:
        """What such an answer would cost at most. RemoteError, no offence:
        `engine.unknown_model`, `engine.no_embeddings`, `provider.draining`,
        `engine.prompt_too_long`."""
        offer = self._seller.find_offer(model)
        check_embeds(offer, prompt.inference_type)
        if parameters.output_tokens_max >= offer.context_tokens:
            detail = f"{parameters.output_tokens_max} tokens of {offer.context_tokens} for output"
            raise RemoteError("engine.prompt_too_long", detail, penalize=False)
        return cost_max_ucr(offer, prompt, parameters)

    def account(self, user: bytes) -> ChequeAccount:
        """What a user owes."""
        return self._context.ledger.cheques.account(user)

    def charged(self, user: bytes, nonce: int) -> ChequeCharged | None:
        """What a user's cheque was charged for, of the last answers."""
        return self._context.ledger.cheques.charged.get((user, nonce))

    def limit_ucr(self, user: bytes) -> int:
        """What a user may owe, 0 for one whose cheques are not taken."""
        return self.terms.users_ucr.get(user, self.terms.newcomer_ucr)

    def _check_limits(self, user: bytes, cost_ucr: int) -> None:
        """RemoteError `cheque.over_limit` when unpaid cheques leave no room for this one."""
        terms, book = self.terms, self._context.ledger.cheques
        rooms = [
            ("you", self.limit_ucr(user) - book.account(user).at_risk_ucr),
            ("all users together", terms.total_ucr - book.at_risk_ucr),
        ]
        if user not in terms.users_ucr:
            listed = sum(book.account(one).at_risk_ucr for one in terms.users_ucr)
            rooms.append(("newcomers together", terms.newcomers_ucr - (book.at_risk_ucr - listed)))
            if not book.has_room(user, self._context.now_ns):
                rooms.append(("newcomers together", 0))
        for who, room_ucr in rooms:
            if cost_ucr > room_ucr:
                left_ucr = max(0, room_ucr)
                left, most = format_credits(left_ucr), format_credits(cost_ucr)
                said = f"{who} have {left} credits left, this may cost {most}"
                short_ucr = cost_ucr - left_ucr
                raise RemoteError("cheque.over_limit", said, penalize=False, short_ucr=short_ucr)

    # --- inputs ----------------------------------------------------------------------------

    def take(self, item: act.Input) -> bool:
        """Handle an input; whether it was for a cheque."""
        match item:
            case ServeCheque():
                try:
                    self._accept(item)
                except RemoteError as error:
                    failed = events.Failed(error.code, error.detail, 0, 0, error.short_ucr)
                    self._context.deliver(item.ask_id, failed)
            case act.ChequesWerePaid():
                paid = ChequesPaid(item.user, item.amount_ucr, self._context.now_ns)
                self._context.append(paid)
            case act.CancelAsk():
                for job in list(self._jobs.values()):
                    if job.asked.ask_id == item.ask_id:
                        self._break_off(job, "request.cancelled", job.due_ucr)
                        return True
                return False
            case act.JobStarted() | act.JobTokens() | act.JobFinished() | act.JobBroke():
                running = self._jobs.get(item.job_id)
                if running is not None:
                    self._engine(running, item)
                return running is not None
            case _:
                return False
        return True

    def start(self) -> None:
        """After the log was replayed: answers that a stop broke off cost nothing."""
        for user, nonce in self._context.ledger.cheques.open_cheques():
            self._charge(user, nonce, 0, "cheque.interrupted")

    def _accept(self, asked: ServeCheque) -> None:
        """Every check first, then every change: a refusal leaves nothing behind."""
        context, cheque = self._context, asked.cheque
        self.check(cheque, context.now_ns)
        most = self.quote(asked.model, asked.prompt, asked.parameters)
        if most > cheque.amount_ucr:
            short_ucr = most - cheque.amount_ucr
            amounts = map(format_credits, (cheque.amount_ucr, most, short_ucr))
            said = "{} of {} credits, {} short".format(*amounts)
            raise RemoteError("cheque.short", said, penalize=False, short_ucr=short_ucr)
        self._check_limits(cheque.user, most)
        offer = self._seller.find_offer(asked.model)
        self._seller.rooms.check(offer, cheque.user)
        tokens = asked.parameters.output_tokens_max
        takes_ns = offer.ttft_ns + tokens * NS_MILLI_TOKENS // max(1, offer.tokens_per_s_milli)
        if takes_ns > asked.timeout_ns:
            said = f"about {takes_ns // 10**9 + 1} s"
            raise RemoteError("engine.too_late", said, penalize=False)
        cid = signing.cheque_id(context.network, cheque)
        context.timers.set(TimerKey(self.TIMER, cid), context.now_ns + asked.timeout_ns)
        self._jobs[cid] = ChequeJob(cid, asked, offer, most, context.now_ns)
        # The engine starts while the record goes to disk: nothing is told before it is there.
        context.act(
            act.StartJob(
                job_id=cid,
                model=asked.model,
                prompt=asked.prompt,
                parameters=asked.parameters,
                payer=cheque.user,
                ttft_ns=offer.ttft_ns,
                tokens_per_s_milli=offer.tokens_per_s_milli,
                ttft_ns_max=asked.timeout_ns,
            )
        )
        prices = offer.input_price_ucr, offer.output_price_ucr
        context.append(ChequeTaken(cheque, asked.model, *prices, most, context.now_ns))
        context.deliver(asked.ask_id, events.Published(cid))
        us = context.public_key
        context.deliver(asked.ask_id, events.Awarded(us, 1, cid, False, 0, 0))
        context.note("cheque.taken", request_id=cid, peer_id=cheque.user, held_ucr=most)

    def _engine(
        self,
        job: ChequeJob,
        item: act.JobStarted | act.JobTokens | act.JobFinished | act.JobBroke,
    ) -> None:
        match item:
            case act.JobStarted():
                job.input_tokens = item.input_tokens
            case act.JobTokens():
                text = "".join(text for text, _ in item.pieces)
                job.output_tokens += sum(count for _, count in item.pieces)
                job.parts.append(text)
                job.logprobs += item.logprobs
                said = events.Text(
                    text, job.output_tokens, job.due_ucr, self._age_ns(job), item.logprobs
                )
                self._context.deliver(job.asked.ask_id, said)
            case act.JobFinished():
                self._finish(job, item)
            case act.JobBroke():
                # What our engine fails is not charged, whatever of it was seen.
                self._break_off(job, item.code, 0)

    def handle_timer(self, key: TimerKey) -> None:
        """The user's time is over: what was made is charged, as if it had left."""
        if job := self._jobs.get(key.subject):
            self._break_off(job, "request.deadline", job.due_ucr)

    # --- the end ---------------------------------------------------------------------------

    def _age_ns(self, job: ChequeJob) -> int:
        return self._context.now_ns - job.started_at_ns

    def _finish(self, job: ChequeJob, finished: act.JobFinished) -> None:
        context, cheque = self._context, job.asked.cheque
        receipt = job.receipt(context.network, context.public_key, finished)
        identity, signature = sign(context, receipt)
        self._forget(job)
        self._charge(cheque.user, cheque.nonce, receipt.price_ucr, "", receipt, signature)
        done = events.Done(receipt, identity, self._age_ns(job), signature)
        context.deliver(job.asked.ask_id, done)

    def _break_off(self, job: ChequeJob, code: str, price_ucr: int) -> None:
        """Stop an answer without a receipt."""
        context, cheque = self._context, job.asked.cheque
        context.act(act.CancelJob(job.cid))
        self._forget(job)
        self._charge(cheque.user, cheque.nonce, price_ucr, code)
        context.deliver(job.asked.ask_id, events.Failed(code, "", price_ucr, self._age_ns(job)))

    def _charge(
        self,
        user: bytes,
        nonce: int,
        price_ucr: int,
        code: str,
        receipt: Receipt | None = None,
        signature: bytes = b"",
    ) -> None:
        context = self._context
        now_ns = context.now_ns
        context.append(ChequeCharged(user, nonce, price_ucr, code, receipt, signature, now_ns))
        context.note("cheque.charged", peer_id=user, cost_ucr=price_ucr, code=code)

    def _forget(self, job: ChequeJob) -> None:
        self._context.timers.cancel(TimerKey(self.TIMER, job.cid))
        del self._jobs[job.cid]
