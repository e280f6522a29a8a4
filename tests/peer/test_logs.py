"""Log lines: bytes have names, levels are kept, one JSON object a line.

Source: peer/logs.py.
"""

import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from peer.identity import peer_id
from peer.logs import configure_logs

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The settings of other tests' logs are left as they were found."""
    yield
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What was logged; nothing may go to stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_lines_are_json_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """stderr is no terminal here: one object a line, with level and time."""
    assert not sys.stderr.isatty()
    configure_logs("info", "auto")
    structlog.get_logger().info("bid.sent", note="two\nlines")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["note"]) == ("bid.sent", "info", "two\nlines")
    assert str(line["timestamp"]).endswith("Z")


def test_bytes_are_peers_or_short_digests(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer by its libp2p id, anything else by 16 hex digits: never 32 bytes in full."""
    configure_logs("info", "json")
    structlog.get_logger().info("x", peer_id=KEY, request_id=KEY, odd_peer=b"\x01", empty=b"")
    (line,) = lines(capsys)
    assert line["peer_id"] == peer_id(KEY)
    assert line["request_id"] == KEY.hex()[:16]
    assert (line["odd_peer"], line["empty"]) == ("01", "")


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
)
def test_levels(capsys: pytest.CaptureFixture[str], level: str, shown: int) -> None:
    """Each level shows itself and what is graver."""
    configure_logs(level, "json")
    log = structlog.get_logger()
    for method in (log.debug, log.info, log.warning, log.error):
        method("event")
    assert len(lines(capsys)) == shown


def test_console_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """On request, text and no JSON."""
    configure_logs("info", "console")
    structlog.get_logger().info("daemon.ready", records=3)
    _, err = capsys.readouterr()
    assert "daemon.ready" in err
    assert not err.lstrip().startswith("{")
