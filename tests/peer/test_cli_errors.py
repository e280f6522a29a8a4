"""Wrong use and wrong configuration: one line with a code, an exit status, never a traceback.

Source: README, "Run a node". The command line runs in this process: what
needs real processes is in tests/e2e.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

import peer.asker
import peer.cli.ask
import peer.cli.options
from engine.embedded import embedded_model_path
from peer.cli.identity import initialize
from peer.config import default_document
from protocol.errors import CODES

ID = "12D3KooWKQerxqsr2XTNpC4NAPkJmEPnSRD1zfqq5ReM6WvEW57d"
DEAD = f"/ip4/127.0.0.1/tcp/9/p2p/{ID}"
LOOPBACK = ("--listen", "/ip4/127.0.0.1/tcp/0")


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Peerd = Callable[..., Outcome]


@pytest.fixture
def peerd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Peerd]:
    """`peerd` with these arguments; logs, which go to stderr as well, are dropped."""
    for module in (peer.cli.ask, peer.cli.options):
        monkeypatch.setattr(module, "configure_logs", lambda level, style: None)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    for name in [name for name in os.environ if name.startswith("PEERD_")]:
        monkeypatch.delenv(name)

    def call(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["peerd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            peer.cli.main()
        assert isinstance(caught.value.code, int)
        return Outcome(caught.value.code, *capsys.readouterr())

    yield call
    structlog.reset_defaults()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node that was just made."""
    directory = tmp_path / "home"
    initialize(directory)
    return directory


def check(peerd: Peerd, status: int, code: str, hint: str, *arguments: str | Path) -> None:
    """One line on stderr with the code and the hint; with --json the same as an object."""
    plain = peerd(*arguments)
    assert plain.status == status, plain
    assert plain.out == ""
    assert plain.err.startswith(f"peerd: {code} ("), plain.err
    assert plain.err.count("\n") == 1, plain.err
    assert hint in plain.err
    assert CODES[code] in plain.err
    as_json = peerd(*arguments, "--json")
    assert as_json.status == status
    assert as_json.err == plain.err
    report = json.loads(as_json.out)
    assert report["error"] == code
    assert hint in report["message"]


@pytest.mark.parametrize(
    "command", [("run",), ("id",), ("channels",), ("log", "verify"), ("log", "show")]
)
def test_before_init(peerd: Peerd, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Without a key, every command that needs one says which command makes it."""
    nowhere = tmp_path / "none"
    check(peerd, 2, "config.no_identity", "run `peerd init`", *command, "--data", nowhere)
    assert not nowhere.exists()


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_nothing_is_not_bought(peerd: Peerd, tmp_path: Path, prompt: str) -> None:
    """An empty variable in a script costs no money."""
    check(peerd, 2, "config.usage", "nothing to ask", "ask", prompt, "--data", tmp_path)


def test_init_twice_keeps_the_key(peerd: Peerd, home: Path) -> None:
    """A second init changes nothing."""
    before = (home / "key").read_text()
    check(peerd, 2, "config.exists", "choose another", "init", "--data", home)
    assert (home / "key").read_text() == before


def test_directory_that_can_not_be_made(peerd: Peerd, tmp_path: Path) -> None:
    """A path under a file, which not even root can write to."""
    (tmp_path / "file").write_text("")
    where = tmp_path / "file" / "home"
    check(peerd, 1, "storage.unwritable", "Not a directory", "init", "--data", where)


def test_log_directory_that_is_a_file(peerd: Peerd, home: Path) -> None:
    """The log can't be begun: said before the node is up."""
    (home / "log").write_text("")
    check(peerd, 1, "storage.unwritable", "check its owner", "run", "--data", home, *LOOPBACK)


@pytest.mark.parametrize("make", ["missing", "empty", "garbage", "cut in header", "cut in data"])
def test_model_file_that_can_not_be_used(peerd: Peerd, home: Path, make: str) -> None:
    """The file is named, and that --model is to be looked at."""
    path = home / "model.gguf"
    whole = embedded_model_path().read_bytes()
    content = {
        "empty": b"",
        "garbage": b"\x5a" * 5_000,
        "cut in header": whole[:3_000],
        "cut in data": whole[:-100_000],
    }
    if make != "missing":
        path.write_bytes(content[make])
    run = ("run", "--data", home, "--model", path, *LOOPBACK)
    check(peerd, 1, "engine.bad_model", f"{path}: ", *run)


@pytest.mark.parametrize(
    ("toml", "code", "hint"),
    [
        ("[network\n", "config.syntax", "line 1"),
        ("drain_s = 1\ndrain_s = 2\n", "config.syntax", "line 2"),
        ('[provider]\ninput_prize = "1"', "config.unknown_key", "mean provider.input_price?"),
        ("[providers]\n", "config.unknown_key", "did you mean provider?"),
        ("zzz = 1", "config.unknown_key", "zzz"),
        ("[provider]\ninput_price = 15", "config.bad_value", "provider.input_price"),
        ('[network]\nlisten = "/ip4/0.0.0.0/tcp/1"', "config.bad_value", "network.listen"),
        ("provider = 3", "config.bad_value", "provider is a section, [provider]"),
        ("drain_s = -1", "config.bad_value", "`int` >= 0 - at `drain_s`"),
        ('drain_s = "10"', "config.bad_value", "drain_s"),
        ('[log]\nlevel = "loud"', "config.bad_value", "debug|info|warning|error"),
        ('[network]\nname = "Not A Name"', "config.bad_value", "network.name"),
        ('[provider]\noutput_price = "much"', "config.bad_value", "output_price: 'much'"),
        ('[requester]\ndeposit = "1e9"', "config.bad_value", "such as 0.25"),
        ('[provider]\ncredit_limit = "9999999999"', "config.bad_value", "1000000000 credits"),
    ],
)
def test_configuration_file(peerd: Peerd, home: Path, toml: str, code: str, hint: str) -> None:
    """What is wrong in the file is named by section and key."""
    (home / "config.toml").write_text(toml + "\n")
    check(peerd, 2, code, hint, "run", "--data", home)


def test_configuration_that_can_not_be_read(peerd: Peerd, home: Path) -> None:
    """Bytes that are no text, and a directory in the file's place."""
    path = home / "config.toml"
    path.write_bytes(b"\xff\xfe")
    check(peerd, 2, "config.syntax", str(path), "run", "--data", home)
    path.unlink()
    path.mkdir()
    check(peerd, 2, "config.unreadable", str(path), "run", "--data", home)


def test_key_that_others_can_read(peerd: Peerd, home: Path) -> None:
    """Mode 0644 is refused, with what to do."""
    (home / "key").chmod(0o644)
    check(peerd, 2, "config.key_mode", "chmod 600", "run", "--data", home)


@pytest.mark.parametrize(
    "content",
    [b"", b"plover\n", b"00" * 31, b"00" * 33, b"\xff" * 64],
    ids=["empty", "words", "short", "long", "bytes"],
)
def test_key_that_is_none(peerd: Peerd, home: Path, content: bytes) -> None:
    """The file is named; its content is not shown."""
    (home / "key").write_bytes(content)
    check(peerd, 2, "config.key_bad", str(home / "key"), "run", "--data", home)
    assert "plover" not in peerd("run", "--data", home).err


@pytest.mark.parametrize("command", [("run",), ("ask", "hi"), ("channels",)])
def test_path_too_long_for_a_socket(
    peerd: Peerd, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """The limit is said, before anything starts."""
    home = tmp_path / ("d" * 100)
    initialize(home)
    check(peerd, 2, "config.bad_value", "at most 107 bytes", *command, "--data", home)
    assert not (home / "log").exists()


@pytest.mark.parametrize(
    ("flag", "address", "hint"),
    [
        ("--listen", "garbage", "/HOST/tcp/PORT"),
        ("--listen", "/ip4/127.0.0.1/udp/0", "/HOST/tcp/PORT"),
        ("--listen", "/ip4/300.0.0.1/tcp/0", "300"),
        ("--listen", "/ip4/127.0.0.1/tcp/65536", "no port"),
        ("--announce", "/dns/-bad-/tcp/1", "no host name"),
        ("--bootstrap", "/ip4/127.0.0.1/tcp/9", "does not end in /p2p/ID"),
        ("--bootstrap", "/ip4/127.0.0.1/tcp/9/p2p/QmNo", "no peer id"),
    ],
)
def test_address_that_is_none(
    peerd: Peerd, home: Path, flag: str, address: str, hint: str
) -> None:
    """Wrong use, found before a log is begun."""
    run = ("run", "--data", home, *LOOPBACK, flag, address)
    check(peerd, 2, "network.bad_address", hint, *run)
    assert not (home / "log").exists()


def test_ask_without_anybody_to_ask(
    peerd: Peerd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No daemon and no --bootstrap; a --bootstrap where nobody is."""
    code = "request.not_connected"
    check(peerd, 1, code, "check --bootstrap", "ask", "hi", "--data", home)
    monkeypatch.setattr(peer.asker, "_CONNECT_S", 0.2)
    check(peerd, 1, code, "nobody answered", "ask", "hi", "--data", home, "--bootstrap", DEAD)


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (("--max-tokens", "-5"), "`int` >= 1 - at `max_tokens`"),
        (("--max-tokens", "9999999"), "max_tokens"),
        (("--temperature", "nan"), "--temperature"),
        (("--seed", "-1"), "seed"),
        (("--max-price", "abc"), "--max-price: 'abc'"),
        (("--max-price=-1",), "--max-price: '-1'"),
        (("--deposit", "1e3"), "--deposit: '1e3'"),
        (("--advance", "0.0000001"), "such as 0.25"),
        (("--price-weight", "1001"), "price_weight"),
        (("--strategy", "race", "--race", "5"), "race"),
        (("--window-ms", "1"), "bid_window_ms"),
        (("--timeout", "0"), "timeout_ms"),
        (("--only", "nobody"), "nobody is"),
        (("--only", f"{ID}x"), "peer id"),
        (("--model", ""), "model"),
    ],
)
def test_flags_of_ask(peerd: Peerd, home: Path, flags: tuple[str, ...], hint: str) -> None:
    """Each wrong value is found before the network is."""
    where: tuple[str | Path, ...] = ("--data", home, "--bootstrap", DEAD)
    check(peerd, 2, "config.bad_value", hint, "ask", "hi", *where, *flags)
    assert not (home / "log").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("nope",), "nope"),
        (("ask",), "PROMPT"),
        (("ask", "hi", "--max-tokens", "many"), "not a valid integer"),
        (("ask", "hi", "--temperature", "9"), "--temperature"),
        (("ask", "hi", "--nope"), "--nope"),
    ],
)
def test_wrong_use(peerd: Peerd, home: Path, arguments: tuple[str, ...], hint: str) -> None:
    """An unknown command or flag, a missing argument, what the flag itself refuses."""
    where: tuple[str | Path, ...] = () if arguments == ("nope",) else ("--data", home)
    check(peerd, 2, "config.usage", hint, *arguments, *where)


def test_a_setting_out_of_range(peerd: Peerd, home: Path) -> None:
    """A flag that the configuration refuses."""
    check(peerd, 2, "config.bad_value", "places", "run", "--places", "0", "--data", home)


def test_settings_of_the_environment(
    peerd: Peerd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is no number is named."""
    monkeypatch.setenv("PEERD_DRAIN_S", "soon")
    check(peerd, 2, "config.bad_value", "drain_s: 'soon'", "run", "--data", home)


def test_document_of_init_is_valid(home: Path) -> None:
    """What init writes is what the defaults are documented as."""
    assert (home / "config.toml").read_text() == default_document()
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
