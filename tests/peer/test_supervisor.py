"""`Type=notify`. Source: sd_notify(3)."""

import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from peer.supervisor import VARIABLE, tell


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    """By a file's name, or by one that the kernel keeps."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path if abstract else path)
        monkeypatch.setenv(VARIABLE, "@" + path if abstract else path)
        tell("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_one_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is gone is a line in the log, and no more."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with capture_logs() as lines:
        tell("READY=1")
        assert lines == []
        monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
        tell("READY=1")
    assert [line["event"] for line in lines] == ["supervisor.not_told"]
