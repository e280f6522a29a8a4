"""What users of cheques owe, what they were charged for last, and which of their nonces are used:
part of the ledger. Pure.

Changed by records alone, so a replay rebuilds it. Rule: router/README.md, "Cheques".
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from protocol import limits, records
from protocol.errors import LocalError


@dataclass(slots=True)
class ChequeAccount:
    """One user; amounts in ucr.

    `owed_ucr` is what was charged and not paid, `held` what each answer that is being made costs
    at most, by nonce. Used nonces are `nonces`, rising, and all up to `floor`.
    """

    owed_ucr: int = 0
    earned_ucr: int = 0
    answers: int = 0
    floor: int = 0
    nonces: list[int] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)

    @property
    def at_risk_ucr(self) -> int:
        """What this user owes, or may come to owe for what runs."""
        return self.owed_ucr + sum(self.held.values())

    @property
    def last(self) -> int:
        """The highest nonce that was used, or counts as used."""
        return self.nonces[-1] if self.nonces else self.floor

    def used(self, nonce: int) -> bool:
        """Whether a nonce was used, or is older than those that are remembered."""
        at = bisect_left(self.nonces, nonce)
        return nonce <= self.floor or self.nonces[at : at + 1] == [nonce]

    def use(self, nonce: int) -> None:
        """Remember a nonce; with too many of them the lowest become the floor."""
        insort(self.nonces, nonce)
        while len(self.nonces) > limits.CHEQUE_NONCES_KEPT:
            self.floor = self.nonces.pop(0)


class ChequeBook:
    """The accounts, in the order in which they came, and the last answers that were charged.

    With too many of them, one who owes nothing and whose nonces have all expired makes room for a
    new one. `floor` is the highest nonce of all who were forgotten: of a user without an account
    it and all below count as used, so that no clock that is put back makes one good again.
    """

    def __init__(self) -> None:
        self.accounts: dict[bytes, ChequeAccount] = {}
        self.charged: dict[tuple[bytes, int], records.ChequeCharged] = {}  # by user and nonce
        self.floor = 0
        self.at_risk_ucr = 0  # sums over all accounts
        self.earned_ucr = 0
        self.forgotten_earned_ucr = 0  # of the earned, by users who were forgotten

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChequeBook) and vars(self) == vars(other)

    def account(self, user: bytes) -> ChequeAccount:
        """The user's account; an empty one, which is not kept, for a user without."""
        return self.accounts.get(user) or ChequeAccount(floor=self.floor)

    def has_room(self, user: bytes, now_ns: int) -> bool:
        """Whether there is an account for this user, or can be."""
        full = user not in self.accounts and len(self.accounts) >= limits.CHEQUE_NEWCOMERS_MAX
        return not full or self._forgettable(now_ns) is not None

    def _forgettable(self, now_ns: int) -> bytes | None:
        """The first user who owes nothing and has no cheque that is still good."""
        before_ns = now_ns - limits.CHEQUE_LIFETIME_NS - limits.CLOCK_SKEW_NS
        for user, account in self.accounts.items():
            if not account.owed_ucr and not account.held and account.last < before_ns:
                return user
        return None

    def open_cheques(self) -> list[tuple[bytes, int]]:
        """User and nonce of every cheque whose answer was not charged yet."""
        return [(user, nonce) for user, one in self.accounts.items() for nonce in one.held]

    def apply(self, record: Any) -> bool:
        """Fold one record in; False for one that is not about cheques. LocalError
        `cheque.replayed` for a nonce that was used, or is charged and was not."""
        match record:
            case records.ChequeTaken():
                self._take(record)
            case records.ChequeCharged():
                self._charge(record)
            case records.ChequesPaid():
                account = self._known(record.user)
                paid = min(account.owed_ucr, record.amount_ucr)
                account.owed_ucr -= paid
                self.at_risk_ucr -= paid
            case _:
                return False
        return True

    def restore(
        self,
        accounts: Iterable[tuple[bytes, ChequeAccount]],
        charged: Iterable[records.ChequeCharged],
    ) -> None:
        """Take accounts and charges in as a snapshot has them."""
        for record in charged:
            self.charged[record.user, record.nonce] = record
        for user, account in accounts:
            self.accounts[user] = account
            self.at_risk_ucr += account.at_risk_ucr
            self.earned_ucr += account.earned_ucr

    def _known(self, user: bytes) -> ChequeAccount:
        account = self.accounts.get(user)
        if account is None:
            raise LocalError("cheque.unknown_user", user.hex()[:16])
        return account

    def _take(self, record: records.ChequeTaken) -> None:
        user, nonce = record.cheque.user, record.cheque.nonce
        account = self.account(user)
        if account.used(nonce):
            raise LocalError("cheque.replayed", str(nonce))
        if user not in self.accounts:
            self._make_room(record.taken_at_ns)
            self.accounts[user] = account
        account.use(nonce)
        account.held[nonce] = record.held_ucr
        self.at_risk_ucr += record.held_ucr

    def _make_room(self, now_ns: int) -> None:
        """Forget one user for the next, if there are too many."""
        if len(self.accounts) < limits.CHEQUE_NEWCOMERS_MAX:
            return
        user = self._forgettable(now_ns)
        if user is not None:
            account = self.accounts.pop(user)
            self.floor = max(self.floor, account.last)
            self.forgotten_earned_ucr += account.earned_ucr

    def _charge(self, record: records.ChequeCharged) -> None:
        account = self._known(record.user)
        if record.nonce not in account.held:
            raise LocalError("cheque.replayed", str(record.nonce))
        held = account.held.pop(record.nonce)
        account.owed_ucr += record.cost_ucr
        account.earned_ucr += record.cost_ucr
        account.answers += record.receipt is not None
        self.at_risk_ucr += record.cost_ucr - held
        self.earned_ucr += record.cost_ucr
        self.charged[record.user, record.nonce] = record
        if len(self.charged) > limits.CHEQUE_RECEIPTS_KEPT:
            del self.charged[next(iter(self.charged))]
