"""A daemon whose models' workers die, and what `peerd status` says of it.

Source: engine/README.md, "What ends a worker".
"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from engine.embedded import embedded_model_path
from protocol import limits
from tests.e2e.judging import answer_of, of
from tests.e2e.support import (
    LONG_PROMPT,
    Daemon,
    Json,
    Market,
    provider_flags,
    run,
    run_json,
    until,
)

SLOW = provider_flags(steps_per_s_max=20)


def health_of(daemon: Daemon, name: str) -> Json:
    """What the daemon says of a model."""
    (health,) = [one for one in daemon.status()["engine"] if one["name"] == name]
    return health


def test_a_crash_loop_withdraws_the_model_and_nothing_else(market: Market) -> None:
    """Killed in mid-stream: the asker is told. Killed again and again: it leaves the bids, the
    other model serves, the daemon lives."""
    home = market.home / "provider-0"
    models = home / "models"
    models.mkdir(parents=True)
    shutil.copyfile(embedded_model_path(), models / "other.gguf")
    (models / "broken.gguf").write_bytes(b"GGUF")
    (provider,) = market.sell(SLOW)
    only = [provider.peer_id]
    assert health_of(provider, "broken")["stage"] == "skipped"
    first = health_of(provider, "embedded")
    assert (first["stage"], first["restarts"], first["last_error"]) == ("serving", 0, "")
    assert 0 < first["resident_bytes"] < first["limit_bytes"]

    asking = market.requester.ask_stream(
        messages=[["user", LONG_PROMPT]], max_tokens=100, providers_only=only, fallbacks=False
    )
    events: list[Json] = []
    for event in asking:
        if event["event"] == "text" and not of(events, "text"):
            os.kill(first["pid"], signal.SIGKILL)
        events.append(event)
    (failed,) = of(events, "failed")
    assert failed["code"] == "engine.crashed"

    for crash in range(1, limits.ENGINE_CRASHES_MAX):
        until(lambda: health_of(provider, "embedded")["stage"] == "serving", "it is restarted")
        again = health_of(provider, "embedded")
        assert again["restarts"] == crash
        os.kill(again["pid"], signal.SIGSEGV)
        until(lambda: health_of(provider, "embedded")["stage"] != "serving", "it is seen")
    withdrawn = health_of(provider, "embedded")
    assert (withdrawn["stage"], withdrawn["pid"]) == ("withdrawn", None)
    assert "killed by SIGSEGV" in withdrawn["last_error"]
    until(
        lambda: [one["name"] for one in provider.status()["models"]] == ["other"],
        "it leaves the offers",
    )
    assert answer_of(market.requester.ask(model="other", providers_only=only, max_tokens=5))
    told = [json.loads(line) for line in provider.log_path.read_text().splitlines()]
    (line,) = [one for one in told if one["event"] == "engine.withdrawn"]
    assert line["model"] == "embedded"
    assert run_json("status", "--data", str(home))["engine"] == provider.status()["engine"]
    table = run("status", "--data", str(home))
    assert table.returncode == 0
    for words in ("withdrawn", "skipped", "serving", "killed by SIGSEGV", provider.peer_id):
        assert words in table.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_status_without_a_daemon(tmp_path: Path, as_json: bool) -> None:
    done = run("status", "--data", str(tmp_path), *(["--json"] if as_json else []))
    assert done.returncode == 1
    assert done.stderr.startswith("peerd: control.unavailable")
    assert (json.loads(done.stdout)["error"] == "control.unavailable") if as_json else True
