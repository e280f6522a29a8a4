"""What nodes decided, read from their logs, and whether two runs decided the same.

A decision is an award that ended (to whom, at which price, how, for how much), a receipt that was
signed, a channel that was settled. Two runs may agree in all of them and still differ in a log's
bytes, by when something happened.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from hashlib import blake2b
from typing import Any, Final

from protocol.records import AwardJudged, ChannelClosed, ReceiptSigned, decode_record
from simnet.peer import Peer

# Number of a node by its key.
Numbers = Callable[[bytes], int]
Decision = tuple[Any, ...]
FIRST: Final = 5


def decisions(peer: Peer, number_of: Numbers) -> list[Decision]:
    """A node's, in the order of its log."""
    found: list[Decision] = []
    for record in (decode_record(number, payload) for number, payload in peer.log):
        match record:
            case AwardJudged():
                to, outcome = number_of(record.provider), record.outcome.name
                prices = record.cost_max_ucr, record.paid_ucr
                found.append(("award", to, record.model, outcome, record.code, *prices))
            case ReceiptSigned():
                receipt = record.receipt
                payer = number_of(receipt.payer)
                tokens = receipt.input_tokens, receipt.output_tokens
                found.append(("receipt", payer, *tokens, receipt.price_ucr))
            case ChannelClosed():
                found.append(("settlement", record.settled_ucr, record.how))
    return found


def fingerprint(peers: Sequence[Peer]) -> str:
    """A hash over all nodes' logs."""
    found = blake2b(digest_size=16)
    for peer in peers:
        found.update(peer.index.to_bytes(4, "big"))
        for number, payload in peer.log:
            found.update(number.to_bytes(4, "big") + len(payload).to_bytes(4, "big") + payload)
    return found.hexdigest()


def compare(ours: Sequence[Peer], theirs: Sequence[Peer], number_of: Numbers) -> dict[str, Any]:
    """`same_decisions`, `same_logs` (to the byte), counts, and the first lines of what differs."""
    decided = other_logs = total = 0
    decided_otherwise: list[str] = []
    written_otherwise: list[str] = []
    for one, other in zip(ours, theirs, strict=True):
        mine, its = decisions(one, number_of), decisions(other, number_of)
        decided += len(mine)
        total += len(one.log)
        if sorted(mine, key=repr) != sorted(its, key=repr):
            decided_otherwise.append(f"node {one.index}: {_first(mine, its)}")
        if one.log != other.log:
            other_logs += 1
            written_otherwise.append(f"node {one.index}: {_first_record(one.log, other.log)}")
    return {
        "same_decisions": not decided_otherwise,
        "same_logs": not other_logs,
        "decisions": decided,
        "records": total,
        "nodes_that_decided_otherwise": len(decided_otherwise),
        "nodes_with_other_logs": other_logs,
        "differences": (decided_otherwise or written_otherwise)[:FIRST],
    }


def _first(mine: list[Decision], its: list[Decision]) -> str:
    for one, other in zip(mine, its, strict=False):
        if one != other:
            return f"{_words(one)}, not {_words(other)}"
    longer, who = (mine, "here alone") if len(mine) > len(its) else (its, "there alone")
    return f"{_words(longer[min(len(mine), len(its))])} {who}"


def _words(decision: Decision) -> str:
    return " ".join(str(part) for part in decision if part != "")


def _first_record(mine: list[tuple[int, bytes]], its: list[tuple[int, bytes]]) -> str:
    for place, (one, other) in enumerate(zip(mine, its, strict=False)):
        if one == other:
            continue
        here, there = decode_record(*one), decode_record(*other)
        if type(here) is not type(there):
            return f"record {place} is {type(here).__name__}, not {type(there).__name__}"
        differing = [
            field.name
            for field in fields(here)
            if getattr(here, field.name) != getattr(there, field.name)
        ]
        return f"record {place}, {type(here).__name__}, differs in {', '.join(differing)}"
    return f"{len(mine)} records, not {len(its)}"
