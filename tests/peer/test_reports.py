"""Events as JSON, and the one object that `peerd ask --json` makes of them.

Source: peer/reports.py, peer/cli/record.py.
"""

import json
from typing import get_args

import pytest

from peer.cli.record import AskRecord
from peer.identity import peer_id
from peer.reports import event_json, recovery_json, recovery_line
from protocol.errors import CODES
from protocol.fields import FinishReason, GenerationProfile, TokenChance, TokenLogprob
from protocol.messages import Receipt
from protocol.recovery import RecoveryReport
from router import events
from router.fold import Fold

ONE, OTHER, CID = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
MS = 1_000_000

RECEIPT = Receipt(
    request_id=CID,
    bid_id=CID,
    cid=CID,
    lane=1,
    payer=ONE,
    payee=OTHER,
    prompt_commitment=CID,
    transcript=CID,
    input_tokens=22,
    output_tokens=96,
    chunks=3,
    price_ucr=6_090,
    started_at_ns=1,
    ttft_ns=5 * MS,
    duration_ns=900 * MS,
    finish_reason=FinishReason.LENGTH,
    profile=GenerationProfile("llama.cpp", CID, CID, "threads=1"),
)

PUBLISHED = events.Published(CID)
BIDS = (
    events.BidSeen(OTHER, 15, 60, 27 * MS, 60_000, 13_440, 700, 41 * MS, ""),
    events.BidSeen(ONE, 10, 40, 159 * MS, 20_000, 8_960, 900, 40 * MS, "bid.unacceptable"),
)
AWARDED = events.Awarded(OTHER, 1, CID, True, 1_000_000, 91 * MS)
RETRYING = events.Retrying(ONE, "provider.busy", 90 * MS)
PAID = events.Paid(CID, 2_265, 92 * MS)
TEXTS = (
    events.Text("The ", 1, 100, 120 * MS),
    events.Text("end.", 2, 200, 130 * MS),
)
DONE = events.Done(RECEIPT, CID, 1_930 * MS)
PART = events.Part(ONE, CID, 3, 12, 5, 480, "engine.crashed", b"")
CONTINUING = events.Continuing(OTHER, "engine.crashed", CID, 2, 200, 150 * MS)
AGAIN = events.AuctionedAgain("provider.busy", CID, 100 * MS)
FAILED = events.Failed("provider.vanished", "mid-stream", 200, 140 * MS)
SETTLED = events.ChannelSettled(CID, 6_090, 993_910)
QUOTED = events.Quoted((BIDS[0],), 5)
ALL = (
    *(
        PUBLISHED,
        *BIDS,
        RETRYING,
        AGAIN,
        AWARDED,
        PAID,
        *TEXTS,
        CONTINUING,
        DONE,
        FAILED,
        QUOTED,
        SETTLED,
    ),
)


# From the award at 91 ms to the text at 120 ms, and from there to the last of TEXTS.
DELIVERY = {
    "ttft_ms": 29.0,
    "promised_ttft_ms": 27.0,
    "tokens_per_s": 100.0,
    "promised_tokens_per_s": 60.0,
}


def record_of(*told: events.AskEvent) -> dict[str, object]:
    """The summary of a request that was told these events."""
    record = AskRecord()
    for event in told:
        record.add(event_json(event))
    return record.summary()


def test_every_event_is_covered() -> None:
    """All kinds are in these tests, each has its name, and all are plain JSON."""
    assert {type(event) for event in ALL} == {*get_args(events.AskEvent), events.ChannelSettled}
    kinds = {type(event): event_json(event)["event"] for event in ALL}
    assert len(set(kinds.values())) == len(kinds)
    for event in ALL:
        assert json.loads(json.dumps(event_json(event))) == event_json(event)


def test_peers_times_and_refusals_are_for_people() -> None:
    """Peer ids as libp2p writes them, ms, and why a bid did not count."""
    good, refused = map(event_json, BIDS)
    assert (good["provider"], good["at_ms"], good["ttft_ms"]) == (peer_id(OTHER), 41.0, 27.0)
    assert (good["refused"], refused["refused"]) == (None, "bid.unacceptable")
    assert event_json(FAILED)["meaning"] == CODES["provider.vanished"]


def test_summary_of_an_answer() -> None:
    """Bids, award, text in one piece, what the receipt says, and the times of each step."""
    summary = record_of(PUBLISHED, *BIDS, RETRYING, AWARDED, PAID, *TEXTS, DONE)
    expected = {
        "request_id": CID.hex(),
        "answer": "The end.",
        "input_tokens": 22,
        "output_tokens": 96,
        "cost_ucr": 6_090,
        "receipt_ok": True,
        "error": None,
        "delivery": DELIVERY,
        "timings_ms": {
            "request_to_first_bid": 40.0,
            "request_to_award": 91.0,
            "request_to_first_token": 120.0,
            "total": 1_930.0,
        },
    }
    assert {key: summary[key] for key in expected} == expected
    assert [len(summary[key]) for key in ("bids", "retries", "vouchers")] == [2, 1, 1]  # type: ignore[arg-type]


def test_summary_of_an_answer_in_parts() -> None:
    """Counts and cost of all lanes; the promise is that of the first text's provider."""
    again = events.Awarded(ONE, 1, CID, False, 0, 300 * MS, "continue")
    done = events.Done(RECEIPT, CID, 1_930 * MS, others=(PART,))
    summary = record_of(PUBLISHED, *BIDS, AWARDED, *TEXTS, CONTINUING, again, done)
    assert (summary["input_tokens"], summary["output_tokens"]) == (34, 101)
    assert summary["cost_ucr"] == 6_570 == done.cost_ucr
    assert [part["code"] for part in summary["parts"]] == ["engine.crashed"]  # type: ignore[attr-defined]
    assert summary["continued"][0]["output_tokens"] == 2  # type: ignore[index]
    assert summary["delivery"]["ttft_ms"] == 29.0  # type: ignore[index]


def test_summary_of_a_failure() -> None:
    """What arrived, what it cost, and the code; no receipt."""
    summary = record_of(PUBLISHED, BIDS[0], AWARDED, TEXTS[0], FAILED)
    assert (summary["answer"], summary["cost_ucr"], summary["receipt_ok"]) == ("The ", 200, False)
    assert summary["error"]["code"] == "provider.vanished"  # type: ignore[index]
    assert summary["error"]["paid_ucr"] == 200  # type: ignore[index]
    assert summary["receipt"] is None


@pytest.mark.parametrize("told", [(), (PUBLISHED,)])
def test_summary_of_nothing(told: tuple[events.AskEvent, ...]) -> None:
    """A daemon that went away leaves nulls, not an exception."""
    summary = record_of(*told)
    assert (summary["answer"], summary["receipt_ok"], summary["award"]) == ("", False, None)
    assert summary["delivery"] is None
    assert set(summary["timings_ms"].values()) == {None}  # type: ignore[attr-defined]


def test_logprobs_are_told_as_openai_s_and_only_where_there_are_some() -> None:
    """Bytes beside text, as a token need not be whole characters; ln as a float."""
    half = TokenChance(b"\xc3", -500_000)
    scored = (TokenLogprob(half, (half, TokenChance(b"a", -1_000_000))),)
    text = events.Text("", 1, 100, 120 * MS, scored)
    told = {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3]}
    expected = {
        **told,
        "top_logprobs": [told, {"token": "a", "logprob": -1.0, "bytes": [97]}],
    }
    assert event_json(text)["logprobs"] == [expected]
    assert "logprobs" not in event_json(TEXTS[0])
    assert record_of(PUBLISHED, text, text, DONE)["logprobs"] == [expected, expected]
    assert "logprobs" not in record_of(PUBLISHED, *TEXTS, DONE)


def test_a_new_log_was_not_rolled_back() -> None:
    """None of no records is not a record that a peer has shown."""
    ledger = Fold("main", ONE).ledger
    found = recovery_json(RecoveryReport(0, 0, 0, bytes(32), 0), ledger, 0.0)
    assert found["rolled_back_from"] is None
    assert "head.rolled_back" not in recovery_line(found)
    assert "head.rolled_back" in recovery_line(found | {"rolled_back_from": 0})
