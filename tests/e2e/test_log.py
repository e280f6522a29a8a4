"""`peerd log` beside a running daemon: it signs and archives itself, and goes on.

Source: peer/README.md, "The log".
"""

from pathlib import Path

from tests.e2e.judging import answer_of
from tests.e2e.support import Market, provider_flags, run_json


def test_a_daemons_log_is_signed_exported_and_archived_while_it_works(
    market: Market, tmp_path: Path
) -> None:
    """The archive holds what the log had; the daemon sells on, and starts from its snapshot."""
    (provider,) = market.sell(provider_flags())
    ask = {"max_tokens": 8, "providers_only": [provider.peer_id]}
    answer_of(market.requester.ask(**ask))
    where = ("--data", str(provider.directory))
    head = run_json("log", "head", *where)
    assert head["owner"] == provider.peer_id
    path = tmp_path / "log.export"
    said = run_json("log", "export", "-o", str(path), *where)
    assert said["last_record"] >= head["record"]
    checked = run_json("log", "verify", str(path), "--key", provider.peer_id)
    assert (checked["ok"], checked["channels"]) == (True, 1)
    archived = run_json("log", "archive", *where)
    assert archived["segments"] == [0]
    answer_of(market.requester.ask(**ask))
    balance = provider.status()["balance"]
    provider.end()
    provider.launch().wait_ready()
    assert provider.status()["balance"] == balance
    assert provider.ready["log"]["from"] == "snapshot"
    found = run_json("log", "verify", *where)
    assert (found["ok"], found["first_record"], found["segments"]) == (True, 0, 2)
    assert found["balance"] == balance
