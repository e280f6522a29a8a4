"""What a witness holds for others: accounts and locked deposits, as the fold of its log. Pure.

Nothing is created or lost: over all accounts, free + locked is what was granted.
Rule: protocol/README.md, "Witnesses".
"""

from dataclasses import dataclass, field
from typing import Any

from protocol import limits, records
from protocol.fields import ChannelTerms, DepositOrder
from protocol.messages import Voucher
from protocol.signing import opened_id


@dataclass(slots=True)
class Account:
    """One peer's funds. `free_ucr` may be below zero where a certified order came before the
    settlement that pays for it.

    `next_order` is the number up to which all orders are certified here; `pending` is the order
    of that number that was signed, and `pending_ucr` what it locked; `ahead` are numbers above
    it that are certified already.
    """

    granted_ucr: int = 0
    free_ucr: int = 0
    locked_ucr: int = 0
    next_order: int = 0
    pending: DepositOrder | None = None
    pending_ucr: int = 0
    ahead: dict[int, DepositOrder] = field(default_factory=dict)


@dataclass(slots=True)
class Held:
    """One channel's deposit; `paid_ucr` of it went to the payee already."""

    payer: bytes
    payee: bytes
    terms: ChannelTerms
    deposit_ucr: int = 0
    certified_ucr: int = 0
    paid_ucr: int = 0
    voucher: Voucher | None = None
    deadline_ns: int = 0
    settled_ucr: int | None = None


class Vault:
    """All that one witness holds."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.accounts: dict[bytes, Account] = {}
        self.channels: dict[bytes, Held] = {}
        self.open_channels = 0
        self.settled: list[bytes] = []  # oldest first, at most WITNESS_SETTLED_KEPT

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vault) and vars(self) == vars(other)

    def cid(self, order: DepositOrder) -> bytes:
        """The channel that an order is for."""
        return opened_id(self.network, order)

    def restore(
        self,
        accounts: list[tuple[bytes, Account]],
        held: list[tuple[bytes, Held]],
        settled: list[bytes],
    ) -> None:
        """Add a part of a snapshot."""
        self.accounts |= dict(accounts)
        self.channels |= dict(held)
        self.open_channels += sum(channel.settled_ucr is None for _, channel in held)
        self.settled += settled

    def account(self, key: bytes) -> Account:
        """The account of a peer, empty where it is new."""
        return self.accounts.setdefault(key, Account())

    def wanted_ucr(self, order: DepositOrder) -> int:
        """How much more an order would lock."""
        held = self.channels.get(self.cid(order))
        if held is not None and held.settled_ucr is not None:
            return 0
        return max(0, order.deposit_ucr - (held.deposit_ucr if held else 0))

    def total_ucr(self) -> tuple[int, int]:
        """(free + locked, granted) over all accounts: always equal."""
        accounts = self.accounts.values()
        return (
            sum(account.free_ucr + account.locked_ucr for account in accounts),
            sum(account.granted_ucr for account in accounts),
        )

    def apply(self, record: Any) -> bool:
        """Fold one record in; False for one that is not a witness's."""
        match record:
            case records.FundsGranted():
                account = self.account(record.account)
                account.free_ucr += record.granted_ucr - account.granted_ucr
                account.granted_ucr = record.granted_ucr
            case records.FundsLocked():
                account = self.account(record.order.payer)
                account.pending_ucr = self._lock(record.order)
                account.pending = record.order
            case records.OrderCertified():
                self._certified(record.order)
            case records.ClaimTaken():
                self._claimed(self.channels[record.cid], record)
            case records.FundsSettled():
                self._settle(record.cid, self.channels[record.cid], record.settled_ucr)
            case _:
                return False
        return True

    def _lock(self, order: DepositOrder) -> int:
        cid, more_ucr = self.cid(order), self.wanted_ucr(order)
        held = self.channels.get(cid)
        if held is None:
            held = self.channels[cid] = Held(order.payer, order.payee, order.terms)
            self.open_channels += 1
        held.deposit_ucr += more_ucr
        account = self.account(order.payer)
        account.free_ucr -= more_ucr
        account.locked_ucr += more_ucr
        return more_ucr

    def _certified(self, order: DepositOrder) -> None:
        account = self.account(order.payer)
        if order.sequence < account.next_order or order.sequence in account.ahead:
            return
        pending = account.pending
        if pending is not None and pending.sequence == order.sequence:
            if pending != order:
                self._release(account, pending)
            account.pending, account.pending_ucr = None, 0
        self._lock(order)
        held = self.channels[self.cid(order)]
        held.certified_ucr = max(held.certified_ucr, order.deposit_ucr)
        account.ahead[order.sequence] = order
        while account.next_order in account.ahead:
            del account.ahead[account.next_order]
            account.next_order += 1

    def _release(self, account: Account, order: DepositOrder) -> None:
        """The payer signed two orders of one number, and this one lost."""
        held = self.channels[self.cid(order)]
        held.deposit_ucr -= account.pending_ucr
        account.locked_ucr -= account.pending_ucr
        account.free_ucr += account.pending_ucr

    def _claimed(self, held: Held, record: records.ClaimTaken) -> None:
        held.deadline_ns = record.deadline_ns
        if record.voucher is not None:
            held.voucher = record.voucher
            self._pay(held, record.voucher.total_ucr)

    def _pay(self, held: Held, total_ucr: int) -> None:
        more_ucr = max(0, min(total_ucr, held.deposit_ucr) - held.paid_ucr)
        held.paid_ucr += more_ucr
        self.account(held.payer).locked_ucr -= more_ucr
        self.account(held.payee).free_ucr += more_ucr

    def _settle(self, cid: bytes, held: Held, settled_ucr: int) -> None:
        self._pay(held, settled_ucr)
        account, rest_ucr = self.account(held.payer), held.deposit_ucr - held.paid_ucr
        account.locked_ucr -= rest_ucr
        account.free_ucr += rest_ucr
        pending = account.pending
        if pending is not None and self.cid(pending) == cid:
            account.pending_ucr = 0  # it is the payer's again, and must not be released twice
        held.settled_ucr, held.deadline_ns = held.paid_ucr, 0
        self.open_channels -= 1
        self.settled.append(cid)
        if len(self.settled) > limits.WITNESS_SETTLED_KEPT:
            del self.channels[self.settled.pop(0)]
