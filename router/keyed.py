"""Requests that a client named by a key: what they cost, also after the node died with them.

A fold of the log, so that no restart buys again what a key bought already. Rule:
router/README.md, "Keys".
"""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

from protocol import limits, records
from protocol.channel import Channel
from protocol.signing import receipt_id


@dataclass(slots=True)
class KeyedLane:
    """A lane that such a request was awarded on; `due_ucr` counts once it has `ended`."""

    cid: bytes
    lane: int
    ended: bool = False
    due_ucr: int = 0
    receipt_id: bytes = b""


@dataclass(slots=True)
class Keyed:
    """One request of a key; `body` stands for what was asked, both are keyed hashes. One that
    is `continued_by` another has the rest of its answer there, and the receipt."""

    name: bytes
    body: bytes
    request_id: bytes
    keyed_at_ns: int
    lanes: list[KeyedLane] = field(default_factory=list)
    continued_by: bytes = b""


@dataclass(frozen=True, slots=True)
class Bought:
    """What all requests of a key came to, so far; `answered` when each has a receipt."""

    body: bytes
    paid_ucr: int
    receipt_ids: tuple[bytes, ...]
    answered: bool


@dataclass(slots=True)
class KeyedRequests:
    """The last KEYED_REQUESTS_KEPT of them, for KEYED_KEPT_NS, oldest first."""

    requests: dict[bytes, Keyed] = field(default_factory=dict)
    _lanes: dict[tuple[bytes, int], KeyedLane] = field(default_factory=dict)

    def keep(self, keyed: Keyed) -> None:
        """Take in a request as it is."""
        self.requests[keyed.request_id] = keyed
        self._lanes |= {(lane.cid, lane.lane): lane for lane in keyed.lanes}

    def apply(self, record: Any) -> bool:
        """Fold one record in; False when it is not this book's."""
        if isinstance(record, records.RequestContinued):
            if keyed := self.requests.get(record.request_id):
                keyed.continued_by = record.by
            return True
        if not isinstance(record, records.RequestKeyed):
            return False
        at_ns = record.keyed_at_ns
        self._forget(at_ns)
        self.keep(Keyed(record.name, record.body, record.request_id, at_ns))
        return True

    def watch(self, record: Any) -> None:
        """See what becomes of the lanes, by the records of other books."""
        match record:
            case records.LaneOpened() if keyed := self.requests.get(record.request_id):
                opened = KeyedLane(record.cid, record.lane)
                keyed.lanes.append(opened)
                self._lanes[opened.cid, opened.lane] = opened
            case records.LaneClosed() if lane := self._lanes.get((record.cid, record.lane)):
                lane.ended, lane.due_ucr = True, record.due_ucr
            case records.ReceiptAcknowledged(receipt=paid):
                if done := self._lanes.get((paid.cid, paid.lane)):
                    done.ended, done.due_ucr = True, paid.price_ucr
                    done.receipt_id = receipt_id(paid)
            case _:
                pass

    def _forget(self, now_ns: int) -> None:
        """Drop what is too old at `now_ns`, and the oldest while there are too many."""
        while self.requests:
            oldest = next(iter(self.requests.values()))
            full = len(self.requests) >= limits.KEYED_REQUESTS_KEPT
            if not full and oldest.keyed_at_ns > now_ns - limits.KEYED_KEPT_NS:
                return
            keyed = self.requests.pop(oldest.request_id)
            for lane in keyed.lanes:
                del self._lanes[lane.cid, lane.lane]

    def bought(
        self, name: bytes, channels: dict[bytes, Channel], orphans: Set[bytes], now_ns: int
    ) -> Bought | None:
        """What a key bought; None when it cost nothing, so that a retry may try again.

        `orphans` are the requests that nobody waits for: those of an earlier life of the node.
        """
        oldest_ns = now_ns - limits.KEYED_KEPT_NS
        found = [
            keyed
            for keyed in self.requests.values()
            if keyed.name == name
            and keyed.keyed_at_ns > oldest_ns
            and _costs(keyed, channels, keyed.request_id in orphans)
        ]
        if not found:
            return None
        receipts = [[x.receipt_id for x in keyed.lanes if x.receipt_id] for keyed in found]
        return Bought(
            found[-1].body,
            sum(_due_ucr(lane, channels) for keyed in found for lane in keyed.lanes),
            tuple(receipt for listed in receipts for receipt in listed),
            all(map(self._answered, found)),
        )

    def _answered(self, keyed: Keyed | None) -> bool:
        """Whether a request has a receipt, or who went on with it."""
        for _ in range(limits.CONTINUATIONS_MAX + limits.AUCTIONS_AGAIN_MAX + 1):
            if keyed is None or any(lane.receipt_id for lane in keyed.lanes):
                break
            keyed = self.requests.get(keyed.continued_by)
        return keyed is not None and any(lane.receipt_id for lane in keyed.lanes)


def _costs(keyed: Keyed, channels: dict[bytes, Channel], orphan: bool) -> bool:
    """Whether a request was paid for, or may be yet."""
    return any(
        lane.receipt_id or _due_ucr(lane, channels) or (orphan and not lane.ended)
        for lane in keyed.lanes
    )


def _due_ucr(keyed: KeyedLane, channels: dict[bytes, Channel]) -> int:
    """What a lane costs, or so far."""
    if keyed.ended:
        return keyed.due_ucr
    channel = channels.get(keyed.cid)
    lane = channel.lanes.get(keyed.lane) if channel is not None else None
    return lane.due_ucr if lane is not None else 0
