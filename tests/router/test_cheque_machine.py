"""Whatever users, engine and operator do, and whenever the node is killed: the log makes the
ledger that lives, no nonce is taken twice, and nobody owes more than was allowed.

Source: router/README.md, "Cheques".
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocol import limits
from router import actions as act
from tests.router.cheque_desk import NOW_NS, USERS, Desk, cheque_of, job_of


class ChequeMachine(RuleBasedStateMachine):
    """Users with limits and newcomers, four places, nonces that come again; two users are
    remembered, and the clock goes any way."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(limits, "CHEQUE_NEWCOMERS_MAX", 2)
        self.desk = Desk()
        self.jobs: dict[bytes, tuple[int, int]] = {}  # job -> its ask, its user
        self.taken: set[tuple[int, int]] = set()

    @rule(
        user=st.integers(0, 3),
        lifetimes=st.integers(0, 3),
        number=st.integers(0, 4),
        tokens=st.integers(1, 400),
    )
    def pay(self, user: int, lifetimes: int, number: int, tokens: int) -> None:
        nonce = lifetimes * (limits.CHEQUE_LIFETIME_NS + 1) + number
        actions = self.desk.serve(cheque_of(USERS[user], nonce=NOW_NS + nonce), tokens)
        if any(isinstance(action, act.StartJob) for action in actions):
            assert (user, nonce) not in self.taken
            self.taken.add((user, nonce))
            self.jobs[job_of(actions)] = self.desk.asks, user

    def _any_job(self, data: st.DataObject) -> bytes | None:
        return data.draw(st.sampled_from(sorted(self.jobs))) if self.jobs else None

    @rule(data=st.data(), tokens=st.integers(0, 500), how=st.sampled_from(["end", "die", "leave"]))
    def end(self, data: st.DataObject, tokens: int, how: str) -> None:
        job = self._any_job(data)
        if job is None:
            return
        ask_id, _ = self.jobs.pop(job)
        if how == "end":
            self.desk.finish(job, tokens=tokens)
        elif how == "die":
            self.desk.give(act.JobBroke(job, "engine.crashed"))
        else:
            self.desk.give(act.CancelAsk(ask_id))

    @rule(data=st.data())
    def starts(self, data: st.DataObject) -> None:
        if job := self._any_job(data):
            self.desk.give(act.JobStarted(job, 12))

    @rule(user=st.integers(0, 3), amount_ucr=st.integers(1, 50_000))
    def paid(self, user: int, amount_ucr: int) -> None:
        key = USERS[user].public_key
        if key in self.desk.node.context.ledger.cheques.accounts:
            self.desk.give(act.ChequesWerePaid(key, amount_ucr))

    @rule(lifetimes=st.integers(0, 3))
    def clock(self, lifetimes: int) -> None:
        self.desk.now_ns = NOW_NS + lifetimes * (limits.CHEQUE_LIFETIME_NS + 1)

    def teardown(self) -> None:
        self.patch.undo()

    @rule()
    def kill(self) -> None:
        self.desk.start()
        self.jobs.clear()

    @invariant()
    def holds(self) -> None:
        self.desk.check_replay()
        terms, book = self.desk.terms, self.desk.node.context.ledger.cheques
        assert 0 <= book.at_risk_ucr <= terms.total_ucr
        assert book.at_risk_ucr == sum(one.at_risk_ucr for one in book.accounts.values())
        for user, account in book.accounts.items():
            assert account.at_risk_ucr <= terms.users_ucr.get(user, terms.newcomer_ucr)
        running = sum(len(account.held) for account in book.accounts.values())
        assert running == len(self.jobs) == self.desk.node.provider.rooms.running


TestCheques = ChequeMachine.TestCase
TestCheques.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
