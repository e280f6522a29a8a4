"""The ledger as bytes and back, for the log's snapshots: names and values, in msgpack.

Says nothing that the records before it do not: whoever reads a whole log may skip it. A field
that a later version adds needs a default, and a part of the ledger that it adds a field here.
Rule: protocol/README.md, "Snapshots".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from protocol import limits
from protocol.channel import Channel
from protocol.errors import StorageError
from protocol.fields import DepositOrder, SignedHead
from protocol.records import ChequeCharged, DepositOrdered, DepositProved, DepositSettled
from router.cheque_book import ChequeAccount
from router.denials import Denial
from router.keyed import Keyed
from router.ledger import Ledger
from router.reputation import Rated, Standing
from router.vault import Account, Held

_encode: Final = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Totals:
    """The ledger's own numbers."""

    receipts: int
    forgotten_spent_ucr: int
    forgotten_earned_ucr: int
    cheques_floor: int = 0
    cheques_forgotten_ucr: int = 0


@dataclass(slots=True)
class State:
    """One part of a snapshot; the lists of all parts are joined, in order."""

    totals: Totals | None = None
    shown: SignedHead | None = None
    channels: list[Channel] = field(default_factory=list)
    closed: list[bytes] = field(default_factory=list)
    denials: list[tuple[bytes, Denial]] = field(default_factory=list)
    debts: list[tuple[bytes, int]] = field(default_factory=list)
    own: list[SignedHead] = field(default_factory=list)
    seen: list[tuple[bytes, SignedHead]] = field(default_factory=list)
    accounts: list[tuple[bytes, Account]] = field(default_factory=list)
    held: list[tuple[bytes, Held]] = field(default_factory=list)
    held_settled: list[bytes] = field(default_factory=list)
    orders: list[DepositOrder] = field(default_factory=list)
    proofs: list[DepositProved] = field(default_factory=list)
    settlements: list[DepositSettled] = field(default_factory=list)
    standings: list[tuple[bytes, str, Standing]] = field(default_factory=list)
    rated: list[tuple[bytes, Rated]] = field(default_factory=list)
    spent: list[tuple[int, int]] = field(default_factory=list)
    keyed: list[Keyed] = field(default_factory=list)
    cheques: list[tuple[bytes, ChequeAccount]] = field(default_factory=list)
    charged: list[ChequeCharged] = field(default_factory=list)


def snapshot_parts(ledger: Ledger) -> Iterator[bytes]:
    """The ledger in parts of at most SNAPSHOT_PART_BYTES_MAX; equal ledgers give equal parts."""
    cheques = ledger.cheques
    totals = Totals(
        receipts=ledger.receipts,
        forgotten_spent_ucr=ledger.forgotten_spent_ucr,
        forgotten_earned_ucr=ledger.forgotten_earned_ucr,
        cheques_floor=cheques.floor,
        cheques_forgotten_ucr=cheques.forgotten_earned_ucr,
    )
    yield _encode({"totals": totals, "shown": ledger.heads.shown})
    listed: dict[str, Iterable[Any]] = {
        "channels": ledger.channels.values(),
        "closed": ledger.closed,
        "denials": ledger.denials.by_payer.items(),
        "debts": ledger.debts.by_payer.items(),
        "own": ledger.heads.own.values(),
        "seen": ledger.heads.seen.items(),
        "accounts": ledger.vault.accounts.items(),
        "held": ledger.vault.channels.items(),
        "held_settled": ledger.vault.settled,
        "orders": ledger.backing.orders.values(),
        "proofs": ledger.backing.proved.values(),
        "settlements": ledger.backing.settled.values(),
        "standings": [(*key, value) for key, value in ledger.reputation.standings.items()],
        "rated": ledger.reputation.rated.items(),
        "spent": ledger.reputation.spent_by_day.items(),
        "keyed": ledger.keyed.requests.values(),
        "cheques": cheques.accounts.items(),
        "charged": cheques.charged.values(),
    }
    for name, values in listed.items():
        for items in _batches(values):
            yield _encode({name: items})


def _batches(values: Iterable[Any]) -> Iterator[list[msgspec.Raw]]:
    """The values encoded, as many at once as a part holds."""
    whole = limits.SNAPSHOT_PART_BYTES_MAX - 32  # without the name and the array around them
    batch: list[msgspec.Raw] = []
    room = whole
    for value in values:
        encoded = msgspec.Raw(_encode(value))
        size = len(bytes(encoded))
        if batch and size > room:
            yield batch
            batch, room = [], whole
        batch.append(encoded)
        room -= size
    if batch:
        yield batch


def restore(ledger: Ledger, parts: Iterable[bytes]) -> None:
    """Fill an empty ledger from a snapshot. StorageError `storage.bad_snapshot`."""
    for part in parts:
        state = _decode(part)
        if state.totals is not None:
            ledger.receipts = state.totals.receipts
            ledger.forgotten_spent_ucr = state.totals.forgotten_spent_ucr
            ledger.forgotten_earned_ucr = state.totals.forgotten_earned_ucr
            ledger.heads.shown = state.shown
            ledger.cheques.floor = state.totals.cheques_floor
            ledger.cheques.forgotten_earned_ucr = state.totals.cheques_forgotten_ucr
            ledger.cheques.earned_ucr += state.totals.cheques_forgotten_ucr
        for channel in state.channels:
            ledger.keep(channel)
        ledger.closed += state.closed
        ledger.denials.by_payer |= dict(state.denials)
        ledger.debts.by_payer |= dict(state.debts)
        ledger.heads.own |= {head.sequence: head for head in state.own}
        ledger.heads.seen |= dict(state.seen)
        ledger.vault.restore(state.accounts, state.held, state.held_settled)
        for order in state.orders:
            ledger.backing.apply(DepositOrdered(order))
        for record in (*state.proofs, *state.settlements):
            ledger.backing.apply(record)
        for provider, model, standing in state.standings:
            ledger.reputation.standings[provider, model] = standing
        ledger.reputation.rated |= dict(state.rated)
        ledger.reputation.spent_by_day |= dict(state.spent)
        for keyed in state.keyed:
            ledger.keyed.keep(keyed)
        ledger.cheques.restore(state.cheques, state.charged)


def _decode(part: bytes) -> State:
    try:
        state = msgspec.msgpack.decode(part, type=State)
        raw = msgspec.msgpack.decode(part)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StorageError("storage.bad_snapshot", str(error)) from error
    if not _within(raw, msgspec.msgpack.decode(_encode(state))):
        raise StorageError("storage.version", "a snapshot has fields of a later version")
    return state


def _within(raw: Any, known: Any) -> bool:
    """Whether all of `raw` is in `known`, which may have more fields, at their defaults."""
    if isinstance(raw, dict) and isinstance(known, dict):
        return all(key in known and _within(value, known[key]) for key, value in raw.items())
    if isinstance(raw, list) and isinstance(known, list):
        return len(raw) == len(known) and all(map(_within, raw, known))
    return bool(raw == known)
