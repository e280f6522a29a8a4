"""`peerd channels`, `balance` and `history` of a node that does not run: the log says it all."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from peer.cli import peerd
from peer.cli.identity import initialize
from peer.daemon import LOG_DIRECTORY
from peer.history import GROUPS
from peer.identity import load_key, peer_id
from peer.journal import Journal
from protocol import signing
from protocol.errors import ConfigError, LocalError, NetworkError
from protocol.fields import ChannelTerms
from protocol.messages import Receipt, Voucher
from protocol.records import (
    AwardJudged,
    ChannelOpened,
    LaneClosed,
    LaneOpened,
    ReceiptAcknowledged,
    ReceiptCountersigned,
    ReceiptSigned,
    VoucherAccepted,
    VoucherIssued,
    encode_record,
)
from tests.vectors.samples import RECEIPT, RECORDS

Invoke = Callable[..., Result]

TERMS = ChannelTerms(window_ucr=5, deposit_max_ucr=10**9, lifetime_ns=10**15, challenge_ns=1)
PROVIDER, BUYER = bytes([7]) * 32, bytes([8]) * 32
NOON = 1_767_268_800 * 10**9  # 2026-01-01 12:00 UTC
DAY = 86_400 * 10**9


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    """`peerd` in this process; its settings of the logs are undone."""
    yield lambda *arguments: CliRunner().invoke(peerd, [str(part) for part in arguments])
    structlog.reset_defaults()


def channel(payer: bytes, payee: bytes, salt: int) -> tuple[bytes, ChannelOpened]:
    salts = bytes([salt]) * 16, bytes(16)
    opened = ChannelOpened(payer, payee, *salts, TERMS, 1_000_000, NOON)
    return signing.channel_id("main", payer, payee, *salts, TERMS), opened


def lane(cid: bytes, number: int, model: str, at_ns: int) -> LaneOpened:
    return LaneOpened(cid, number, bytes([number]) * 32, bytes(32), model, 15, 60, at_ns, b"")


def judged(strategy: str) -> AwardJudged:
    """Of the first lane, as every award is at its end."""
    return replace(
        RECORDS["AwardJudged"], request_id=bytes([1]) * 32, provider=PROVIDER, strategy=strategy
    )


def receipt(cid: bytes, number: int, price_ucr: int) -> Receipt:
    return replace(RECEIPT, cid=cid, lane=number, price_ucr=price_ucr)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node that bought twice (one job failed) on one channel, and sold once on another."""
    initialize(tmp_path)
    owner = load_key(tmp_path).public_key
    buying, opened = channel(owner, PROVIDER, 1)
    selling, sold = channel(BUYER, owner, 2)
    receipt_sold = receipt(selling, 1, 250_001)
    records: list[Any] = [
        opened,
        lane(buying, 1, "small", NOON),
        VoucherIssued(buying, 60_000, ()),
        ReceiptAcknowledged(receipt(buying, 1, 52_500), bytes(64), bytes(64)),
        judged("cheapest"),
        lane(buying, 2, "large", NOON + DAY),
        LaneClosed(buying, 2, 1, 1_000, "engine.crashed", NOON + DAY),
        sold,
        lane(selling, 1, "small", NOON + DAY),
        ReceiptSigned(receipt_sold, bytes(64)),
        ReceiptCountersigned(selling, 1, signing.receipt_id(receipt_sold), bytes(64)),
        VoucherAccepted(Voucher(selling, 250_000, (), bytes(64))),
        lane(selling, 2, "small", NOON + DAY),
    ]
    log = tmp_path / LOG_DIRECTORY
    journal = Journal.open(log, network="main", owner=owner, on_entry=lambda entry: None)
    for record in records:
        journal.append_nowait(*encode_record(record))
    journal.close()
    return tmp_path


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_channels_alone_lists_them(home: Path, invoke: Invoke) -> None:
    """`channels` and `channels list` are one, in both forms."""
    for form in ((), ("--json",)):
        alone = invoke("channels", "--data", home, *form)
        listed = invoke("channels", "list", "--data", home, *form)
        assert alone.stdout == listed.stdout != ""
    channels = answer(invoke("channels", "--data", home, "--json"))["channels"]
    assert [one["role"] for one in channels] == ["payer", "payee"]


def test_show_takes_the_beginning_of_an_id(home: Path, invoke: Invoke) -> None:
    """Money with exact decimals, and the channel's jobs; --json has both."""
    first, second = answer(invoke("channels", "--data", home, "--json"))["channels"]
    shown = invoke("channels", "show", first["channel"][:10], "--data", home)
    assert shown.exit_code == 0, shown.exception
    for part in (first["channel"], "voucher total 0.06 credits", "0.0525", "engine.crashed"):
        assert part in shown.stdout, part
    whole = answer(invoke("channels", "show", second["channel"], "--data", home, "--json"))
    assert {**whole, "jobs": None} == {**second, "jobs": None}
    (job,) = whole["jobs"]  # the lane that still runs is none yet
    assert (job["cost_ucr"], job["countersigned"]) == (250_001, True)


def test_history_says_what_each_job_cost(home: Path, invoke: Invoke) -> None:
    """Bought and sold, ended jobs only, the failed one with its code."""
    jobs = answer(invoke("history", "--data", home, "--json"))["jobs"]
    assert [(job["role"], job["model"], job["day"], job["cost_ucr"]) for job in jobs] == [
        ("payer", "small", "2026-01-01", 52_500),
        ("payer", "large", "2026-01-02", 1_000),
        ("payee", "small", "2026-01-02", 250_001),
    ]
    assert [job["error"] for job in jobs] == [None, "engine.crashed", None]
    assert [job["receipt_id"] is None for job in jobs] == [False, True, False]
    shown = invoke("history", "--data", home)
    assert "0.250001" in shown.stdout


@pytest.mark.parametrize(
    ("options", "costs"),
    [
        (("--model", "small"), [52_500, 250_001]),
        (("--peer", peer_id(PROVIDER)), [52_500, 1_000]),
        (("--since", "2026-01-02"), [1_000, 250_001]),
        (("--last", "1"), [250_001]),
        (("--model", "none"), []),
    ],
)
def test_history_can_be_narrowed(
    home: Path, invoke: Invoke, options: tuple[str, ...], costs: list[int]
) -> None:
    """By peer, model and day; the last so many of what is left."""
    jobs = answer(invoke("history", "--data", home, "--json", *options))["jobs"]
    assert [job["cost_ucr"] for job in jobs] == costs


@pytest.mark.parametrize("by", GROUPS)
def test_balance_by_its_parts_comes_to_the_balance(home: Path, invoke: Invoke, by: str) -> None:
    """The rows' sums are the balance; `history --by` gives the same rows."""
    balance = answer(invoke("balance", "--data", home, "--json", "--by", by))
    rows = balance["by"]
    assert sum(row["spent_ucr"] for row in rows) == balance["spent_ucr"] == 53_500
    assert sum(row["earned_ucr"] for row in rows) == balance["earned_ucr"] == 250_001
    assert sum(row["jobs"] for row in rows) == 3
    assert answer(invoke("history", "--data", home, "--json", "--by", by))["by"] == rows
    shown = invoke("balance", "--data", home, "--by", by).stdout
    assert "net 0.196501 credits" in shown
    assert "0.000001 credits delivered, no voucher yet" in shown


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("strategy", ["cheapest", "sold", "unknown"]),
        ("hour", ["2026-01-01T12", "2026-01-02T12"]),
        ("provider", [peer_id(PROVIDER), None]),
    ],
)
def test_sums_by_how_when_and_who_did_it(
    home: Path, invoke: Invoke, by: str, names: list[str | None]
) -> None:
    """What was sold was done by this node; a job from before logs had strategies has none."""
    rows = answer(invoke("history", "--data", home, "--json", "--by", by))["by"]
    own = peer_id(load_key(home).public_key)
    assert [row[by] for row in rows] == sorted(name or own for name in names)


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (("channels", "show", "ffff"), LocalError, "channel.unknown"),
        (("channels", "show", ""), ConfigError, "config.bad_value"),
        (("history", "--peer", "12D3KooWnobody"), ConfigError, "config.bad_value"),
        (("history", "--since", "yesterday"), ConfigError, "config.bad_value"),
    ],
)
def test_wrong_names_are_coded_errors(
    home: Path, invoke: Invoke, arguments: tuple[str, ...], error: type, code: str
) -> None:
    """A name that fits nothing, or more than one thing, is never guessed at."""
    result = invoke(*arguments, "--data", home)
    assert isinstance(result.exception, error), result.output
    assert result.exception.code == code


def test_close_needs_a_daemon_and_the_payer(home: Path, invoke: Invoke) -> None:
    """Without a daemon, and on a channel that we earn on, it says what would be needed."""
    paying, earning = answer(invoke("channels", "--data", home, "--json"))["channels"]
    result = invoke("channels", "close", paying["channel"], "--data", home)
    assert isinstance(result.exception, NetworkError)
    assert result.exception.code == "control.unavailable"
    result = invoke("channels", "close", earning["channel"], "--data", home)
    assert isinstance(result.exception, LocalError)
    assert result.exception.code == "channel.wrong_state"


def test_options_of_the_group_are_not_lost_in_silence(home: Path, invoke: Invoke) -> None:
    """`channels --data X list` would list another node's channels: it is wrong use."""
    result = invoke("channels", "--data", home, "list")
    assert result.exit_code == 2
    assert "channels list --data DIR" in result.output


def test_node_that_never_ran_has_no_history(tmp_path: Path, invoke: Invoke) -> None:
    """Empty, not an error."""
    initialize(tmp_path)
    assert answer(invoke("history", "--data", tmp_path, "--json")) == {"jobs": []}
    assert answer(invoke("balance", "--data", tmp_path, "--json"))["net_ucr"] == 0
