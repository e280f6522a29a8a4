"""What witnesses hold behind our channels, on either end: the fold of our own log. Pure.

Rule: protocol/README.md, "Witnesses".
"""

from typing import Any

from protocol import records
from protocol.fields import DepositOrder
from protocol.signing import opened_id


class Backing:
    """Our orders by number, what is proved of them, and every channel's best proof.

    Ours are kept for good: a witness that was down for long asks for them, one a deposit.
    """

    def __init__(self, network: str, owner: bytes) -> None:
        self.network = network
        self.owner = owner
        self.orders: dict[int, DepositOrder] = {}
        # By payer and number: all of ours, and of others' each channel's best.
        self.proved: dict[tuple[bytes, int], records.DepositProved] = {}
        self.settled: dict[bytes, records.DepositSettled] = {}
        self._ordered_ucr: dict[bytes, int] = {}
        self._best: dict[bytes, records.DepositProved] = {}
        self._certified = 0  # of ours, without a gap

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backing) and vars(self) == vars(other)

    def cid(self, order: DepositOrder) -> bytes:
        """The channel that an order is for."""
        return opened_id(self.network, order)

    def pending(self) -> DepositOrder | None:
        """Our order that waits for its certificate: one is asked for at a time."""
        return self.orders.get(self._certified)

    def certificate(self, number: int) -> records.DepositProved | None:
        """The certificate of our order `number`."""
        return self.proved.get((self.owner, number))

    def ordered_ucr(self, cid: bytes) -> int:
        """The most that we ordered for a channel."""
        return self._ordered_ucr.get(cid, 0)

    def proof(self, cid: bytes) -> records.DepositProved | None:
        """The highest deposit of a channel that a certificate stands behind."""
        return self._best.get(cid)

    def proved_ucr(self, cid: bytes) -> int:
        """That deposit, 0 for none."""
        best = self._best.get(cid)
        return best.order.deposit_ucr if best is not None else 0

    def apply(self, record: Any) -> bool:
        """Fold one record in; False for one that is not about deposits at witnesses."""
        match record:
            case records.DepositOrdered():
                self.orders[record.order.sequence] = record.order
                self._ordered_ucr[self.cid(record.order)] = record.order.deposit_ucr
            case records.DepositProved():
                self._prove(record)
            case records.DepositSettled():
                self.settled[record.cid] = record
            case _:
                return False
        return True

    def _prove(self, record: records.DepositProved) -> None:
        order = record.order
        cid, number = self.cid(order), (order.payer, order.sequence)
        best = self._best.get(cid)
        ours = order.payer == self.owner
        if best is None or order.deposit_ucr > best.order.deposit_ucr:
            self._best[cid] = record
            if best is not None and not ours:
                del self.proved[best.order.payer, best.order.sequence]
        elif not ours:
            return
        self.proved[number] = record
        while (self.owner, self._certified) in self.proved:
            self._certified += 1
