"""A node that takes cheques, its log in memory, and users who write them."""

from typing import Any

from protocol import crypto
from protocol.cheque import write_cheque
from protocol.crypto import Signer
from protocol.fields import Cheque, FinishReason
from protocol.records import decode_record
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from router.cheques import ChequeTerms
from router.fold import Fold
from router.node import Node
from router.snapshot import snapshot_parts
from tests.router.support import MODEL, PROMPT, make_ask, offer

NETWORK = "desk"
NOW_NS = 1_760_000_000 * NS_PER_S
SELLER = Signer(bytes(range(32)))
USERS = [Signer(crypto.digest(b"user", bytes([number]))) for number in range(4)]
# "hi" has at most 2 + 8 + 256 tokens, of which each costs 15 ucr; a token of output costs 60.
INPUT_MAX_UCR = 266 * 15


def most_ucr(tokens: int) -> int:
    """What an answer of so many tokens costs at worst."""
    return INPUT_MAX_UCR + 60 * tokens


def cheque_of(
    user: Signer = USERS[0], amount_ucr: int = 100_000, *, age_ns: int = 0, **changes: Any
) -> Cheque:
    """A good cheque, unless `changes` say otherwise."""
    said = {"network": NETWORK, "node": SELLER.public_key, "nonce": NOW_NS - age_ns, **changes}
    return write_cheque(user, said.pop("network"), amount_ucr=amount_ucr, **said)


class Desk:
    """The node; users 0 and 1 are listed, others are newcomers. May be stopped and go on."""

    def __init__(self, **terms: Any) -> None:
        limits = {"total_ucr": 100_000, "newcomer_ucr": 20_000, "newcomers_ucr": 30_000}
        users = {user.public_key: 60_000 for user in USERS[:2]}
        self.terms = ChequeTerms(**{**limits, "users_ucr": users, **terms})
        self.log: list[tuple[int, bytes]] = []
        self.asks = 0
        self.offer = offer()
        self.now_ns = NOW_NS
        self.start()

    def replayed(self) -> Fold:
        """What the log says."""
        fold = Fold(NETWORK, SELLER.public_key)
        for number, payload in self.log:
            fold.replay(number, payload)
        return fold

    def start(self) -> None:
        """From the log, as after a kill -9."""
        fold = self.replayed()
        self.node = Node(SELLER, NETWORK, fold.live(), entropy=bytes, log=fold, cheques=self.terms)
        self.give(act.Started())
        self.give(act.OffersChanged((self.offer,)))

    def give(self, item: act.Input) -> list[act.Action]:
        """An input; its records are on disk at once."""
        taken = self.node.receive(item, self.now_ns)
        self.log += [(a.type, a.payload) for a in taken if isinstance(a, act.Append)]
        return taken

    def serve(self, cheque: Cheque, tokens: int = 40, **changes: Any) -> list[act.Action]:
        """A cheque for an answer of at most so many tokens."""
        self.asks += 1
        ask = make_ask(self.asks, tokens)
        said = {"model": MODEL, "prompt": PROMPT, "timeout_ns": 60 * NS_PER_S, **changes}
        return self.give(act.ServeCheque(self.asks, cheque, parameters=ask.parameters, **said))

    def finish(self, job_id: bytes, *, tokens: int, input_tokens: int = 12) -> list[act.Action]:
        """The engine makes a whole answer."""
        done = act.JobFinished(job_id, FinishReason.STOP, tokens, 5, 9, "engine", "settings")
        return [
            *self.give(act.JobStarted(job_id, input_tokens)),
            *self.give(act.JobTokens(job_id, (("word ", tokens),))),
            *self.give(done),
        ]

    def check_replay(self) -> None:
        """The log makes the ledger that lives, to the byte."""
        live = list(snapshot_parts(self.node.context.ledger))
        assert list(snapshot_parts(self.replayed().ledger)) == live


def told(actions: list[act.Action]) -> list[Any]:
    """What the asker hears."""
    return [action.event for action in actions if isinstance(action, act.Deliver)]


def refusal(actions: list[act.Action]) -> tuple[str, str]:
    """Code and detail of a refusal, which did nothing else."""
    assert [type(a) for a in actions if not isinstance(a, act.Note)] == [act.Deliver], actions
    (failed,) = told(actions)
    assert isinstance(failed, events.Failed), failed
    assert failed.paid_ucr == 0
    return failed.code, failed.detail


def job_of(actions: list[act.Action]) -> bytes:
    """The job that the engine was given."""
    (job,) = [action.job_id for action in actions if isinstance(action, act.StartJob)]
    return job


def records_of(actions: list[act.Action]) -> list[Any]:
    """What was logged."""
    return [decode_record(a.type, a.payload) for a in actions if isinstance(a, act.Append)]
